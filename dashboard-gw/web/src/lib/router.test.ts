import { expect, it } from "vitest";
import { Router } from "./router.svelte";

function at(query: string): Router {
  history.replaceState(null, "", `/lab/${query}`);
  return new Router();
}

it("reads the place from the URL", () => {
  expect(at("").view).toBe("overview");
  expect(at("?view=events").view).toBe("events");
  expect(at("?view=nonsense").view).toBe("overview");
  expect(at("?node=lamp%2F1")).toMatchObject({ view: "node", node: "lamp/1" });
  expect(at("?as=table&q=x&state=offline&board=a&board=b")).toMatchObject({
    layout: "table",
    filter: { search: "x", state: ["offline"], bridge: [], board: ["a", "b"] },
  });
});

it("keeps the filter in the URL, under whatever path it is served", () => {
  const router = at("");
  router.toggle("state", "offline");
  router.setSearch("a b");
  expect(location.pathname + location.search).toBe("/lab/?state=offline&q=a+b");
  router.toggle("state", "offline");
  router.setSearch("");
  expect(location.pathname + location.search).toBe("/lab/");
});

it("comes back from a node to the filter it left", () => {
  const router = at("?board=m3");
  router.go("?node=a");
  expect(router.view).toBe("node");
  expect(router.overview).toBe("?board=m3");
  router.close();
  expect(location.search).toBe("?board=m3");
});

it("searches from any place in the overview", () => {
  const router = at("?view=status");
  router.setSearch("lamp");
  expect(router).toMatchObject({ view: "overview", filter: { search: "lamp" } });
});

it("sorts by a column, and the other way round by the same again", () => {
  const router = at("?as=table");
  router.setSort("board");
  expect(router).toMatchObject({ sort: "board", descending: false });
  router.setSort("board");
  expect(router).toMatchObject({ sort: "board", descending: true });
});
