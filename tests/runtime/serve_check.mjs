/** Prints the titles that a server's page shows first: `node serve_check.mjs URL`. */

import { launch } from "../../runtime/web/browser.mjs";

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(process.argv[2]);
  await page.waitForSelector(".row .card");
  console.log(JSON.stringify(await page.$$eval(".card", (cards) => cards.map((card) => card.textContent))));
} finally {
  await browser.close();
}
