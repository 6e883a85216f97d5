/** @type {import("@sveltejs/vite-plugin-svelte").SvelteConfig} */
export default {
  // Also for components that use no rune, so that nothing of Svelte 4 is in the bundle.
  compilerOptions: { runes: true },
};
