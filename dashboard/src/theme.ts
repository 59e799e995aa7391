/** Light, dark, or what the system says. */
import { byId } from "./dom.js";
import { remembered } from "./session.js";

const THEMES = ["auto", "light", "dark"];

/** Makes the button work. */
export function theme(): void {
  const chosen = remembered(() => localStorage, "fanlight.theme");
  const button = byId("theme");
  const apply = (): void => {
    const name = THEMES.includes(chosen.get()) ? chosen.get() : "auto";
    document.documentElement.dataset["theme"] = name;
    button.textContent = `Theme: ${name}`;
  };
  button.addEventListener("click", () => {
    chosen.set(THEMES[(THEMES.indexOf(document.documentElement.dataset["theme"]!) + 1) % THEMES.length]!);
    apply();
  });
  apply();
}
