// Keeps the site on the device, so that it works without a network.
//
// kept.js names the site's version, the files of its page, which are kept when the worker is
// installed, and those of the model and its runtimes: large, so each is kept when first loaded.

importScripts("kept.js");

const { version, page, later } = self.KEPT;
const SCOPE = new URL("./", self.location).href;
const KNOWN = new Set([...page, ...later].map((path) => new URL(path, SCOPE).href));
const PREFIX = `${SCOPE} `; // other sites of this origin have caches too
const CACHE = PREFIX + version;

self.addEventListener("install", (event) => {
  // Past the browser's own cache, which may hold the version before.
  const requests = page.map((path) => new Request(new URL(path, SCOPE), { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    }
    await self.clients.claim(); // of the page that installed it: what it loads is kept
  })());
});

self.addEventListener("message", (event) => {
  if (event.data === "claim") event.waitUntil(self.clients.claim());
  // Also while another tab shows the old version, and never while a page is being loaded.
  if (event.data === "take over") event.waitUntil(self.skipWaiting());
});

self.addEventListener("fetch", (event) => {
  const asked = event.request.url.split(/[?#]/)[0];
  const address = asked === `${SCOPE}index.html` ? SCOPE : asked;
  if (event.request.method === "GET" && KNOWN.has(address)) event.respondWith(kept(event, address));
});

async function kept(event, address) {
  const cache = await caches.open(CACHE);
  // Asked past all caches: what is kept was damaged on the way.
  const found = event.request.cache === "reload" ? undefined : await cache.match(address);
  if (found) return found;
  const response = await fetch(event.request);
  if (response.status === 200) event.waitUntil(cache.put(address, response.clone()));
  return response;
}
