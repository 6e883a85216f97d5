// What happy-dom lacks or the tests must hold still.

import { afterEach, vi } from "vitest";

afterEach(() => {
  vi.useRealTimers();
  history.replaceState(null, "", "/");
});
