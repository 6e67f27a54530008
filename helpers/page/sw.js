// The service worker: after the first visit the page works offline. Each export writes a version of its own here.

const SCOPE = self.registration.scope, VERSION = `${SCOPE} unpublished`; // other pages of this host have other scopes
const FILES = ["./", "style.css", "app.js", "photo.js", "color.js", "network.js"];
const PAGE = FILES.map((name) => new Request(name, { cache: "reload" })); // not as the browser happens to hold them
const fresh = async () => (await caches.open(VERSION)).addAll(PAGE);
const old = (name) => name.startsWith(`${SCOPE} `) && name !== VERSION;
const tidied = async () => Promise.all((await caches.keys()).filter(old).map((name) => caches.delete(name)));

self.addEventListener("install", (event) => event.waitUntil(fresh().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(tidied().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const cache = await caches.open(VERSION), kept = await cache.match(request);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) await cache.put(request, response.clone());
  return response;
}
