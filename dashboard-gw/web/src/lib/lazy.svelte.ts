// A component that isn't in the first load. Once there it is shown at once, also without a gateway.

import type { Component } from "svelte";

export class Lazy<Props extends Record<string, unknown>> {
  /** The component, as soon as it is there. */
  component: Component<Props> | null = $state.raw(null);
  /** Whether the last attempt to load it failed. */
  failed = $state(false);
  readonly #import: () => Promise<{ default: Component<Props> }>;

  constructor(load: () => Promise<{ default: Component<Props> }>) {
    this.#import = load;
  }

  /** Loads it, unless it is there. A failed attempt may be made again. */
  async load(): Promise<void> {
    if (this.component !== null) return;
    try {
      this.component = (await this.#import()).default;
      this.failed = false;
    } catch {
      this.failed = true;
    }
  }
}
