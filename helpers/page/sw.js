// The service worker: after the first visit the page works offline. Each export writes a version of its own here.

const VERSION = "unpublished", PAGE = ["./", "style.css", "app.js", "photo.js", "color.js", "network.js"];
const fresh = async () => (await caches.open(VERSION)).addAll(PAGE.map((name) => new Request(name, { cache: "reload" })));
const tidied = async () => Promise.all((await caches.keys()).map((name) => name !== VERSION && caches.delete(name)));

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
