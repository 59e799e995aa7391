/** Dialogs: native ones, which keep the focus inside and close with Escape. */
import { byId, h } from "./dom.js";

/** Opens a dialog with a form. It is removed when it closes; the promise says whether it was confirmed. */
export function openDialog(title: string, content: Node[], confirm: string, danger = false): Promise<boolean> {
  const heading = h("h2", { id: "dialog-title" }, title);
  const cancel = h("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Cancel");
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
  const form = h("form", {}, heading, ...content, h("div", { class: "actions" }, cancel, go));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("confirmed");
  });
  document.body.append(dialog);
  dialog.showModal();
  // What cannot be taken back is not confirmed by a key that was meant for the page.
  if (danger) cancel.focus();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "confirmed");
    }),
  );
}

/** Says something for some seconds, also to a screen reader. */
export function toast(text: string, bad = false): void {
  const note = h("div", { class: bad ? "toast bad" : "toast" }, text);
  byId("toasts").append(note);
  setTimeout(() => note.remove(), bad ? 10_000 : 5_000);
}
