// How components reach the one store, router and theme.

import { createContext } from "svelte";
import type { Router } from "./router.svelte";
import type { Store } from "./store.svelte";
import type { Theme } from "./theme.svelte";

export type App = { store: Store; router: Router; theme: Theme };

export const [useApp, provideApp] = createContext<App>();
