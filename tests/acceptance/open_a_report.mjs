// Opens a report in Chromium and prints as JSON what it does there.
//   node open_a_report.mjs FOLDER_OF_NODE_MODULES CHROMIUM URL FOLDER_FOR_SCREENSHOTS
import { axe, browser, open, requests, said, shots } from "./in_chromium.mjs";

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
