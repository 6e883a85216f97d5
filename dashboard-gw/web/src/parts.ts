// What the first load does without: all but the bars and the cards.

import { Lazy } from "./lib/lazy.svelte";

export const parts = {
  node: new Lazy(() => import("./views/NodePage.svelte")),
  events: new Lazy(() => import("./views/Events.svelte")),
  status: new Lazy(() => import("./views/Status.svelte")),
  settings: new Lazy(() => import("./views/Settings.svelte")),
  table: new Lazy(() => import("./components/NodeTable.svelte")),
  teach: new Lazy(() => import("./components/Teach.svelte")),
  help: new Lazy(() => import("./components/Help.svelte")),
};

/** Loads all of them; what fails is loaded when it is opened. */
export async function loadParts(): Promise<void> {
  for (const part of Object.values(parts)) await part.load();
}
