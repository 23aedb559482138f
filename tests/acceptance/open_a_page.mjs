// Opens the page of an SAE in Chromium and prints as JSON what it does there.
//   node open_a_page.mjs FOLDER_OF_NODE_MODULES CHROMIUM URL FOLDER_FOR_SCREENSHOTS
import { axe, browser, open, requests, said, shots } from "./in_chromium.mjs";

// The latents that the list shows, and those of the cards, in their order.
const shown = (page) => page.evaluate(() => {
  const seen = (selector) => [...document.querySelectorAll(selector)]
    .filter((element) => !element.hidden).map((element) => Number(element.dataset.latent));
  return { rows: seen("tbody tr"), cards: seen("article") };
});
const column = (page, at) => page.$$eval("tbody tr", (rows, at) =>
  rows.map((row) => Number(row.cells[at].dataset.value)), at);
const order = (page) => page.$$eval("thead th[aria-sort]", (heads) =>
  heads.map((head) => head.getAttribute("aria-sort")));
const focused = (page) => page.evaluate(() => document.activeElement.id);

async function sorting(page) {
  const found = {};
  for (const [at, name] of ["Latent", "Density", "Largest"].entries()) {
    const button = page.getByRole("button", { name, exact: true });
    found[name] = [];
    for (let press = 0; press < 2; press++) {
      await button.click();
      found[name].push({ values: await column(page, at), order: await order(page), ...(await shown(page)) });
    }
  }
  return found;
}

async function searching(page) {
  const found = {};
  const text = await page.locator("article .peak").first().textContent();
  const number = await page.locator("article").last().getAttribute("data-latent");
  for (const words of [text.toUpperCase(), number, "zq\u00e9zq", ""]) {
    await page.getByRole("searchbox").fill(words);
    const has = await page.$$eval("article:not([hidden])", (cards, words) =>
      cards.filter((card) => card.textContent.toLowerCase().includes(words.toLowerCase().trim())).length, words);
    found[words] = { ...(await shown(page)), has, count: await page.locator("#count").textContent() };
  }
  // A link to a latent that the search hides ends the search.
  await page.getByRole("searchbox").fill("zq\u00e9zq");
  await page.evaluate((number) => { location.hash = `latent-${number}`; }, number);
  await page.waitForFunction(() => document.activeElement.tagName === "H3");
  return { found, number, after: { ...(await shown(page)), focus: await focused(page) } };
}

// Tab from the top of the page to its end: how many of the elements that take part were reached.
async function tabbing(page) {
  const all = await page.evaluate(() => {
    const parts = 'a[href], button, input, summary, [tabindex="0"]';
    window.wanted = new Set([...document.querySelectorAll(parts)].filter((each) => each.getClientRects().length));
    return window.wanted.size;
  });
  const first = [];
  for (let press = 0; press < all + 5; press++) {
    await page.keyboard.press("Tab");
    const name = await page.evaluate(() => {
      window.wanted.delete(document.activeElement);
      return document.activeElement.textContent.trim().slice(0, 40);
    });
    if (first.length < 3) first.push(name);
  }
  return { all, first, left: await page.evaluate(() => [...window.wanted].map((each) => each.outerHTML.slice(0, 80))) };
}

async function reading(page) {
  const context = page.locator("article .text").filter({ has: page.locator("mark") }).first();
  const note = page.locator("article .note").first();
  const before = await note.textContent();
  await context.focus();
  const notes = [];
  for (const key of ["ArrowRight", "ArrowLeft", "ArrowRight"]) {
    await page.keyboard.press(key);
    notes.push(await note.textContent());
  }
  await page.keyboard.press("Tab");
  const after = await note.textContent();
  await context.locator(".peak").hover();
  return { before, notes, after, hovered: await note.textContent() };
}

async function violations(page) {
  await page.addStyleTag({ content: ".card { content-visibility: visible !important; }" });
  await page.addScriptTag({ content: axe });
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.slice(0, 3).map((n) => n.html.slice(0, 120)) }));
}

const found = { axe: {}, overflow: {} };
const page = await open();
found.sorting = await sorting(page);
found.searching = await searching(page);
found.tabbing = await tabbing(await open());
found.reading = await reading(await open());
found.without = (await shown(await open({ javaScriptEnabled: false }))).cards.length;
for (const [width, colorScheme] of [[1280, "light"], [390, "dark"]]) {
  const look = { viewport: { width, height: 900 }, colorScheme };
  const plain = await open(look);
  const name = `${width}-${colorScheme}`;
  await plain.screenshot({ path: `${shots}/${name}.png` });
  found.overflow[name] = await plain.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  found.axe[name] = await violations(await open({ ...look, bypassCSP: true }));
}
await browser.close();
console.log(JSON.stringify({ ...found, said, requests: [...requests] }));
