"""Debian's Chromium, driven by a line of JSON for each step.

Steps: {"do": "open", "url"}, {"do": "wait", "selector", "text"?}, {"do": "gone", "selector"},
{"do": "click", "selector"}, {"do": "text", "selector"}, {"do": "attribute", "selector", "name"},
{"do": "fill", "selector", "value"}, {"do": "size", "width", "height", "dark"?}, {"do": "shot", "path"},
{"do": "overflow"}, {"do": "mark"} (remembers that this page was not reloaded), {"do": "marked"}.
Each is answered by one line: {"ok": value} or {"error": text}.
"""

import json
import shutil
import sys

from playwright.sync_api import sync_playwright

PATIENCE = 30_000


def step(page, s):
    do = s["do"]
    if do == "open":
        page.goto(s["url"], timeout=PATIENCE)
    elif do == "wait":
        found = page.locator(s["selector"])
        if s.get("text") is not None:
            found = found.filter(has_text=s["text"])
        found.first.wait_for(timeout=PATIENCE)
    elif do == "gone":
        page.locator(s["selector"]).first.wait_for(state="detached", timeout=PATIENCE)
    elif do == "click":
        page.locator(s["selector"]).first.click(timeout=PATIENCE)
    elif do == "fill":
        page.locator(s["selector"]).first.fill(s["value"], timeout=PATIENCE)
    elif do == "text":
        return page.locator(s["selector"]).first.inner_text(timeout=PATIENCE)
    elif do == "attribute":
        return page.locator(s["selector"]).first.get_attribute(s["name"], timeout=PATIENCE)
    elif do == "size":
        page.set_viewport_size({"width": s["width"], "height": s["height"]})
        page.emulate_media(color_scheme="dark" if s.get("dark") else "light")
    elif do == "shot":
        page.screenshot(path=s["path"])
    elif do == "overflow":
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    elif do == "mark":
        page.evaluate("window.__mark = true")
    elif do == "marked":
        return page.evaluate("window.__mark === true")
    else:
        raise ValueError(do)
    return None


def main():
    executable = shutil.which("chromium")
    if executable is None:
        sys.exit("chromium is not installed: run scripts/install-test-deps")
    flags = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", *flags])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        print(json.dumps({"ok": "ready"}), flush=True)
        for line in sys.stdin:
            try:
                answer = {"ok": step(page, json.loads(line))}
                if problems:
                    answer = {"error": "the page threw: " + "; ".join(problems)}
            except Exception as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
        browser.close()


main()
