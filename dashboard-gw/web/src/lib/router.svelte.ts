// Where the page is, in the URL's query: `?node=lamp`, `?view=events`, none of both for the overview,
// and the overview's filter beside it. Only the query, so that the page works under any path of a
// reverse proxy and a reload needs nothing of the server.

import { FACETS, type Facet, type Filter, SORTS, type Sort } from "./filter";

export type View = "overview" | "node" | "events" | "status" | "settings";
export type Layout = "cards" | "table";

const VIEWS: readonly string[] = ["events", "status", "settings"] satisfies View[];

export class Router {
  #query = $state.raw(new URLSearchParams(location.search));
  /** The overview as it was last seen, filter and all: where closing a node leads back to. */
  #overview = "?";

  readonly node: string | null = $derived(this.#query.get("node"));
  readonly view: View = $derived.by(() => {
    if (this.node !== null) return "node";
    const view = this.#query.get("view") ?? "";
    return VIEWS.includes(view) ? (view as View) : "overview";
  });
  readonly layout: Layout = $derived(this.#query.get("as") === "table" ? "table" : "cards");
  readonly sort: Sort = $derived(SORTS.find((sort) => sort === this.#query.get("sort")) ?? "name");
  readonly descending: boolean = $derived(this.#query.get("down") === "1");
  readonly filter: Filter = $derived({
    search: this.#query.get("q") ?? "",
    state: this.#list("state"),
    bridge: this.#list("bridge"),
    board: this.#list("board"),
  });

  /** The way back to the overview. */
  get overview(): string {
    return this.view === "overview" ? this.#href(this.#query) : this.#overview;
  }

  start(): () => void {
    const onPop = () => this.#read();
    const onClick = (event: MouseEvent) => this.#onClick(event);
    window.addEventListener("popstate", onPop);
    document.addEventListener("click", onClick);
    return () => {
      window.removeEventListener("popstate", onPop);
      document.removeEventListener("click", onClick);
    };
  }

  /** Goes to another place; `back` brings one back here. */
  go(href: string): void {
    this.#remember();
    history.pushState(null, "", href === "?" ? location.pathname : href);
    this.#read();
    window.scrollTo(0, 0);
  }

  /** Closes a node: back to the overview, with its filter. */
  close(): void {
    if (this.view !== "overview") this.go(this.overview);
  }

  setLayout(layout: Layout): void {
    this.#change((query) => put(query, "as", layout === "table" ? "table" : ""));
  }

  setSearch(search: string): void {
    this.#change((query) => put(query, "q", search));
  }

  /** Sorts by a column; the same again turns the order around. */
  setSort(sort: Sort): void {
    const turn = this.sort === sort && !this.descending;
    this.#change((query) => {
      put(query, "sort", sort === "name" ? "" : sort);
      put(query, "down", turn ? "1" : "");
    });
  }

  toggle(facet: Facet, value: string): void {
    const now = this.filter[facet];
    const next = now.includes(value) ? now.filter((one) => one !== value) : [...now, value];
    this.#change((query) => {
      query.delete(facet);
      for (const one of next) query.append(facet, one);
    });
  }

  clearFilter(): void {
    this.#change((query) => {
      for (const name of ["q", ...FACETS]) query.delete(name);
    });
  }

  #list(facet: Facet): string[] {
    return this.#query.getAll(facet);
  }

  #change(edit: (query: URLSearchParams) => void): void {
    const query = new URLSearchParams(this.view === "overview" ? this.#query : this.overview);
    edit(query);
    if (this.view === "overview") {
      history.replaceState(null, "", query.size === 0 ? location.pathname : this.#href(query));
      this.#query = query;
    } else {
      this.go(this.#href(query));
    }
  }

  #read(): void {
    this.#remember();
    this.#query = new URLSearchParams(location.search);
  }

  #remember(): void {
    if (this.view === "overview") this.#overview = this.#href(this.#query);
  }

  #href(query: URLSearchParams): string {
    return `?${query}`;
  }

  #onClick(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const href = link?.getAttribute("href");
    if (!link || !href?.startsWith("?") || link.target !== "") return;
    event.preventDefault();
    this.go(href);
  }
}

/** The address of a node's page. */
export function nodeHref(id: string): string {
  return `?${new URLSearchParams({ node: id })}`;
}

function put(query: URLSearchParams, name: string, value: string): void {
  if (value === "") query.delete(name);
  else query.set(name, value);
}
