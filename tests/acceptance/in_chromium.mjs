// What the programs that open a page share: a browser whose console and requests are kept.
//   node PROGRAM.mjs FOLDER_OF_NODE_MODULES CHROMIUM URL FOLDER_FOR_SCREENSHOTS
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , modules, executablePath, url, folder] = process.argv;
export const shots = folder;
const require = createRequire(`${modules}/node_modules/`);
const { chromium } = require("playwright-core");
export const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const quiet = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
  "--disable-background-networking", "--disable-component-update",
];
export const browser = await chromium.launch({ executablePath, args: quiet });
export const said = [];
export const requests = new Set();

export async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("request", (request) => requests.add(request.url().split("#")[0]));
  await page.goto(url);
  return page;
}
