// Opens a report in Chromium and prints as JSON what it does there.
//   node open_a_report.mjs FOLDER_OF_NODE_MODULES CHROMIUM URL FOLDER_FOR_SCREENSHOTS
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , modules, executablePath, url, shots] = process.argv;
const require = createRequire(`${modules}/node_modules/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const quiet = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
  "--disable-background-networking", "--disable-component-update",
];
const browser = await chromium.launch({ executablePath, args: quiet });
const said = [];
const requests = new Set();

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("request", (request) => requests.add(request.url().split("#")[0]));
  await page.goto(url);
  return page;
}

const column = (page, at) => page.$$eval("section:has(#saes) tbody tr:not([hidden])", (rows, at) =>
  rows.map((row) => row.cells[at].textContent), at);

const found = { sorted: [], axe: {}, overflow: {} };
const page = await open();
found.before = await column(page, 2);
const head = page.locator("section:has(#saes) thead th").nth(2);
for (let press = 0; press < 2; press++) {
  await head.getByRole("button").press("Enter");
  found.sorted.push({ values: await column(page, 2), order: await head.getAttribute("aria-sort") });
}
await page.locator("#filter-saes").fill("TOP_K k_4");
found.filtered = await column(page, 0);
found.count = await page.locator("section:has(#saes) .count").textContent();
const tabbed = await open();
const all = await tabbed.evaluate(() => {
  window.wanted = new Set(document.querySelectorAll('a[href], button, input, [tabindex="0"]'));
  return window.wanted.size;
});
for (let press = 0; press < all + 5; press++) {
  await tabbed.keyboard.press("Tab");
  await tabbed.evaluate(() => window.wanted.delete(document.activeElement));
}
found.left = await tabbed.evaluate(() => [...window.wanted].map((each) => each.outerHTML.slice(0, 80)));
found.pictures = await tabbed.$$eval("img", (images) => images.map((image) => image.naturalWidth));
for (const width of [1280, 390]) {
  for (const colorScheme of ["light", "dark"]) {
    const name = `report-${width}-${colorScheme}`;
    const plain = await open({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
    await plain.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
    found.overflow[name] = await plain.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    await plain.addScriptTag({ content: axe });
    const { violations } = await plain.evaluate(() => window.axe.run());
    found.axe[name] = violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes[0].html.slice(0, 120) }));
  }
}
await browser.close();
console.log(JSON.stringify({ ...found, said, requests: [...requests] }));
