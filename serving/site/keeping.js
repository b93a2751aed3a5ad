// Says what of the site is kept on the device. The keeping itself is service_worker.js's: the page
// when it is opened, and whatever else goes through it.

import { megabytes } from "../web/answers.js";
import { at } from "../web/question.js";

const PATIENCE_MS = 30_000; // for the browser to write what it was given
const file = at("file"), button = at("keep");

/** Keeps the page, the file that answers, and every file that is chosen later. */
export class Keeper {
  #answerer;
  #model = null;
  /** Resolves when what the page loads is kept; true if that is so, false where it cannot be. */
  ready;

  /** @param {import("./answerer.js").Answerer} answerer */
  constructor(answerer) {
    this.#answerer = answerer;
    this.ready = control().then(() => true, (error) => {
      say(`Works with a network only: ${error.message}`);
      return false;
    });
  }

  /** Keep the file that answers. */
  async start(model) {
    this.#model = model;
    if (!(await this.ready)) return;
    file.addEventListener("change", () => this.#keep([file.value]));
    button.addEventListener("click", async () => {
      button.disabled = true;
      // The one that answers comes last: of all files only one stays loaded.
      await this.#keep([...model.files.map(({ path }) => path), file.value]);
      button.disabled = false;
    });
    await this.#keep([file.value]);
  }

  async #keep(paths) {
    try {
      for (const path of paths) {
        if (paths.length > 1 && path !== file.value && await isKept(path)) continue;
        await this.#answerer.load(path, (share) => {
          say(`Keeping ${path} on this device: ${Math.floor(100 * share)}\u00a0% …`);
        });
        await until(() => isKept(path));
      }
    } catch (error) {
      say(`Not everything is kept on this device: ${error.message}`);
      return;
    }
    await this.#show();
  }

  async #show() {
    const missing = [], kept = [];
    for (const one of this.#model.files) ((await isKept(one.path)) ? kept : missing).push(one);
    const names = kept.map(({ path }) => path).join(", ");
    say(missing.length
      ? `Ready without a network, with ${names}. Other files are kept when first chosen.`
      : "Ready without a network, with every file.");
    const bytes = missing.reduce((sum, one) => sum + one.bytes, 0);
    button.textContent = `Keep all files, ${megabytes(bytes)} more`;
    button.hidden = !missing.length;
  }
}

/** Wait for the service worker to see what this page loads. */
async function control() {
  const workers = navigator.serviceWorker;
  if (!workers) throw new Error("browsers keep pages from https:// addresses only.");
  // kept.js, which names the version, is never taken from the browser's own cache.
  const registration = await workers.register("service_worker.js", { updateViaCache: "none" });
  if (workers.controller && registration.waiting) await takeNewVersion(registration.waiting);
  // Browsers put off looking for a new version while pages load, so quick reloads would never
  // find one. Without a network there is none to be found.
  if (registration.active) registration.update().catch(() => {});
  if (workers.controller) return;
  await new Promise((resolve, reject) => {
    workers.addEventListener("controllerchange", resolve, { once: true });
    const coming = registration.installing ?? registration.waiting;
    coming?.addEventListener("statechange", () => {
      if (coming.state === "redundant") reject(new Error("the browser could not keep the page."));
    });
    registration.active?.postMessage("claim"); // after a reload past all caches
  });
}

/**
 * Start again with the version that was kept while this one was shown. Only a page that has just
 * been opened does so: nothing is typed yet, and none of its files is still on the way.
 */
function takeNewVersion(waiting) {
  return new Promise(() => { // what follows is the new page's
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(),
      { once: true });
    waiting.postMessage("take over");
  });
}

async function isKept(path) {
  return (await caches.match(new URL(`model/${path}`, document.baseURI).href)) !== undefined;
}

async function until(holds) {
  const end = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (performance.now() > end) {
      throw new Error("the browser does not keep it. The disk may be full.");
    }
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

function say(words) {
  at("offline").textContent = words;
}
