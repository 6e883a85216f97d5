// Puts the page together.

import { mount } from "svelte";
import App from "./App.svelte";
import { openStream } from "./lib/connection";
import { Router } from "./lib/router.svelte";
import { Store } from "./lib/store.svelte";
import { Theme } from "./lib/theme.svelte";
import "./tokens.css";
import "./base.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no #app");

const app = { store: new Store(openStream), router: new Router(), theme: new Theme() };
mount(App, { target, props: { app } });
