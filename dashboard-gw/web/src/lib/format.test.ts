import { describe, expect, it } from "vitest";
import {
  age,
  count,
  dateTime,
  decimals,
  number,
  shellWord,
  systemName,
  value,
  wayName,
} from "./format";

describe("age", () => {
  it.each([
    [-500, "0 s"],
    [0, "0 s"],
    [3_999, "3 s"],
    [60_000, "1 min"],
    [59 * 60_000 + 59_999, "59 min"],
    [3_600_000, "1 h"],
    [47 * 3_600_000, "47 h"],
    [72 * 3_600_000, "3 d"],
  ])("%i ms ago is %s", (ms, text) => {
    expect(age(ms)).toBe(text);
  });
});

describe("values", () => {
  it.each([
    [21.5, "21.5"],
    [21, "21"],
    [-0.5, "\u22120.5"],
    [1013.2512, "1013.3"],
    [0.12345, "0.123"],
    [1234567, "1234567"],
    [2.5e12, "2.50e+12"],
    [0.00002, "2.00e\u22125"],
    [0, "0"],
  ])("the number %d is shown as %s", (v, text) => {
    expect(value(v)).toBe(text);
  });

  it("keeps its decimals when the digits are given", () => {
    expect(number(22, 1)).toBe("22.0");
    expect(decimals(21.57)).toBe(2);
    expect(decimals(1008.63)).toBe(1);
  });

  it("shows what is no number as it is", () => {
    expect(value(true)).toBe("on");
    expect(value(null)).toBe("nothing");
    expect(value("<b>x</b>")).toBe("<b>x</b>");
  });

  it.each([
    [[1, -2.5], "1, \u22122.5"],
    [{ lat: 48.525324, lng: 7.7 }, "lat 48.525324, lng 7.7"],
    [
      [
        { type: "acc", values: [1, 2] },
        { type: "mag", values: [3] },
      ],
      "acc 1, 2 · mag 3",
    ],
    [{ a: { b: { c: { d: { e: 1 } } } } }, "a b c d …"],
    ["x".repeat(9), "xxxxxxxxx"],
  ])("notes %j as %s", (v, text) => {
    expect(value(v)).toBe(text);
  });

  it("keeps a long structured value short", () => {
    expect(value(Array(10_000).fill(1)).length).toBeLessThan(500);
  });
});

it("tells the date only when it is another day", () => {
  const now = new Date(2026, 4, 5, 12, 3, 5).getTime();
  expect(dateTime(now, now)).toBe("12:03:05");
  expect(dateTime(new Date(2026, 4, 4, 12, 3, 5).getTime(), now)).toBe("4 May, 12:03:05");
  expect(dateTime(new Date(2025, 4, 5, 12, 3, 5).getTime(), now)).toBe("5 May 2025, 12:03:05");
  expect(dateTime(Number.NaN, now)).toBe("at an unknown time");
});

it("calls systems and ways as people do", () => {
  expect(systemName("riot")).toBe("RIOT");
  expect(systemName("mine")).toBe("mine");
  expect(wayName("coap", "coap")).toBe("CoAP");
  expect(wayName("ws", "websocket")).toBe("WebSocket");
  expect(wayName("roof", "coap")).toBe("roof · CoAP");
});

it("counts in words", () => {
  expect(count(1, "node")).toBe("1 node");
  expect(count(0, "node")).toBe("0 nodes");
});

it("quotes for a shell", () => {
  expect(shellWord("a'b")).toBe(`'a'\\''b'`);
});
