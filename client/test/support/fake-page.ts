/** A window and its document, as far as the client looks at them. */
import type { Platform } from "../../src/index.js";
import type { FakeServer } from "./fake-server.js";

/** A page whose life the test plays. */
export class FakePage {
  readonly window = new EventTarget();
  readonly document = { hidden: false };
  readonly platform: Platform;

  constructor(server: FakeServer) {
    this.platform = {
      fetch: server.fetch,
      addEventListener: this.window.addEventListener.bind(this.window) as typeof addEventListener,
      document: this.document as Document,
      localStorage: {} as Storage,
    };
  }

  /** Fires an event at the window. */
  fire(type: string): void {
    this.window.dispatchEvent(new Event(type));
  }

  /** Hides or shows the page. */
  hide(hidden: boolean): void {
    this.document.hidden = hidden;
    this.fire("visibilitychange");
  }
}
