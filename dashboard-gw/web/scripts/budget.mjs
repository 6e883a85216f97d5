// Fails when what a browser must load first grows past the budget: a Pi behind a slow link serves it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 40_000;
const dist = new URL("../dist/", import.meta.url).pathname;
const html = readFileSync(join(dist, "index.html"), "utf8");

if (/<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=/.test(html)) {
  throw new Error("index.html holds an inline script or style, which the gateway's CSP refuses");
}

const files = [...html.matchAll(/(?:src|href)="\.\/(assets\/[^"]+\.(?:js|css))"/g)].map(
  (match) => match[1] ?? "",
);
let total = 0;
for (const file of files) {
  const size = gzipSync(readFileSync(join(dist, file))).length;
  total += size;
  process.stdout.write(`${file}: ${(size / 1000).toFixed(1)} kB gzip\n`);
}
process.stdout.write(
  `entry: ${(total / 1000).toFixed(1)} of ${BUDGET_BYTES / 1000} kB gzip in ${files.length} files\n`,
);
if (files.length === 0 || total > BUDGET_BYTES) {
  throw new Error("the entry bundle is over its budget: load something later, or leave it out");
}
