// The places of the page, in the order in which they are shown.

import type { IconName } from "../components/Icon.svelte";
import type { View } from "./router.svelte";

export type Place = { view: View; title: string; icon: IconName };

export const PLACES: readonly Place[] = [
  { view: "overview", title: "Nodes", icon: "cards" },
  { view: "events", title: "Events", icon: "events" },
  { view: "status", title: "Status", icon: "status" },
  { view: "settings", title: "Settings", icon: "settings" },
];
