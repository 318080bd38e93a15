// Types of shallop.js and <shallop-carousel>. For a script tag, reference this file; for
// `import shallop from "…/shallop.mjs"`, point `paths` of tsconfig.json at it.

/** `session`: a session id in the tab's storage. `granted`: a visitor id too. `denied`: nothing. */
export type Consent = "granted" | "session" | "denied";

export type EventName =
  | "page_view"
  | "view_item"
  | "view_item_list"
  | "select_item"
  | "add_to_cart"
  | "remove_from_cart"
  | "begin_checkout"
  | "purchase"
  | "view_search_results";

export interface Item {
  /** The shop's key; a number is sent as text. */
  item_id: string | number;
  item_name?: string;
  item_category?: string;
  /** In the event's `currency`. */
  price?: number;
  quantity?: number;
  /** Place in its list, from 0. */
  index?: number;
}

/** What an event may carry; fields that Shallop does not know are kept in `extra`. */
export interface Fields {
  items?: Item[];
  item_list_id?: string;
  /** Added by itself to events of one item that was clicked in a recommendation. */
  recommendation_id?: string;
  value?: number;
  /** ISO 4217; the option `currency` where absent. */
  currency?: string;
  extra?: Record<string, unknown>;
  [other: string]: unknown;
}

export interface TrackedEvent extends Fields {
  event_id: string;
  event_name: string;
  occurred_at: string;
  session_id: string;
  visitor_id?: string;
  user_id?: string;
  consent: Consent;
  page_url: string;
  referrer?: string;
}

/** Also as attributes of the script tag: `data-session-minutes="30"`. */
export interface Options {
  /** Where Shallop answers; where shallop.js came from, unless named. */
  endpoint?: string;
  /** A write key (`shp_pub_…`), where the collector asks for keys; never a secret key. */
  key?: string;
  /** Until `consent()` is called; `session` unless named. */
  consent?: Consent;
  /** `ignore`: consent stands above Do-Not-Track and Global Privacy Control. */
  signals?: "honour" | "ignore";
  /** `always`: a visitor id without `granted` too. */
  visitor?: "always";
  /** Keep the visitor id in a first-party cookie of this domain; `""` is the page's own host. */
  cookie?: string;
  /** ISO 4217, of all events and of the carousel's prices. */
  currency?: string;
  /** Milliseconds that an event waits for others; 200 unless named. */
  delay?: number | string;
  /** Minutes without an event that end a session; 30 unless named. */
  sessionMinutes?: number | string;
}

/** The parameters of GET /recommend. */
export interface RecommendOptions {
  k?: number | string;
  placement?: string;
  /** The item of this page. */
  item?: string;
  /** Item ids by commas, in place of the session's own steps. */
  items?: string;
  /** Item ids by commas. */
  exclude?: string;
  category?: string;
  session?: string;
  endpoint?: string;
}

export interface RecommendedItem {
  item_id: string;
  title: string | null;
  category: string | null;
  price: number | null;
  score: number;
  /** From 1, the best. */
  rank: number;
  source: string;
  reason: string;
}

export interface Recommendation {
  recommendation_id: string;
  session: string | null;
  placement: string | null;
  /** `fusion`, `gru4rec`, or `popularity` while no model serves. */
  model: string;
  model_version: string;
  variant: string | null;
  fallback: { reason: string; message: string } | null;
  items: RecommendedItem[];
}

/** None of these ever throws or rejects; troubles are told by `shallop:failed`. */
export interface Shallop {
  /** Called by a script tag itself; nothing is stored or sent before. */
  init(options?: Options): void;
  /** The visitor's choice, on every page: shallop.js does not remember it. */
  consent(state: Consent): void;
  /** Queues an event; its event_id, null where consent is denied. */
  track(name: EventName, fields?: Fields): string | null;
  /** `track("page_view")`. */
  page(fields?: Fields): string | null;
  /** The user of this tab's further events; null forgets them. */
  identify(userId: string | number | null): void;
  /** Asks after all events tracked until now; null where nothing may be asked or none answers. */
  recommend(options?: RecommendOptions): Promise<Recommendation | null>;
  /** Resolves once what was tracked is durable, or cannot be sent for the moment. */
  flush(): Promise<void>;
  /** The id of this tab's session, null where consent is denied. */
  session(): string | null;
  /** Begins a new session of nobody known. */
  reset(): void;
  /**
   * Reports cards as they are seen (half of one in view for a second) and clicked, with the list's
   * `data-item-list-id` and `data-recommendation-id`; returns what ends it. Cards are the
   * elements with `data-item-id`.
   */
  watch(list: HTMLElement, cards?: HTMLElement[]): (() => void) | null;
  readonly options: Options;
}

export interface ShallopCarousel extends HTMLElement {
  /** Makes a card, in place of a `<template>`. */
  card: ((item: RecommendedItem, reply: Recommendation) => Node) | null;
  readonly reply: Recommendation | null;
  /** The element that scrolls. */
  readonly list: HTMLElement;
  /** Asks again. */
  refresh(): void;
}

declare const shallop: Shallop;
export default shallop;

declare global {
  interface Window {
    /** Before shallop.js has come only `q`: calls to make then, as `["track", "view_item", …]`. */
    shallop: Shallop & { q: { push(call: [string, ...unknown[]]): void } };
  }
  interface HTMLElementTagNameMap {
    "shallop-carousel": ShallopCarousel;
  }
  interface DocumentEventMap {
    "shallop:track": CustomEvent<TrackedEvent>;
    /** Durable at the server; `errors` names events that it refused. */
    "shallop:sent": CustomEvent<{
      events: TrackedEvent[];
      errors: { index: number; field: string; message: string; reason: string }[];
    }>;
    /** Given up: refused by the server, or the oldest of a full queue. */
    "shallop:dropped": CustomEvent<{ events: TrackedEvent[]; reason: unknown }>;
    /** Events wait until `retryAt`, or a call failed with `error`. */
    "shallop:failed": CustomEvent<{ status?: number; retryAt?: number; error?: unknown }>;
    "shallop:consent": CustomEvent<{ consent: Consent; allowed: boolean }>;
    "shallop:shown": CustomEvent<Recommendation>;
    "shallop:empty": CustomEvent<{ reason: "denied" | "failed" | "no_items" }>;
  }
}
