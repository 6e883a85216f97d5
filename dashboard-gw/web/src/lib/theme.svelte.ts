// Light or dark: as the system is, unless a person chose otherwise on this device.

export const THEMES = ["system", "light", "dark"] as const;
export type ThemeName = (typeof THEMES)[number];

const KEY = "nodebus-theme";

export class Theme {
  #name: ThemeName = $state(read());

  constructor() {
    this.#show();
  }

  get name(): ThemeName {
    return this.#name;
  }

  set(name: ThemeName): void {
    this.#name = name;
    this.#show();
    try {
      if (name === "system") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, name);
    } catch {
      // A browser that keeps nothing still shows it until the page is closed.
    }
  }

  /** The next of the three. */
  next(): ThemeName {
    return THEMES[(THEMES.indexOf(this.#name) + 1) % THEMES.length] ?? "system";
  }

  #show(): void {
    if (this.#name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.#name;
  }
}

function read(): ThemeName {
  try {
    const kept = localStorage.getItem(KEY);
    return THEMES.find((theme) => theme === kept) ?? "system";
  } catch {
    return "system";
  }
}
