// Runs the script of one-table.html on a stand-in for a browser's document, and prints what it drew.
// node tests/one_table_page.js PAGE CHOICES: a list of {dataset, protocol, families, sort}, each made in turn.
const fs = require("fs");
const [page, choices] = process.argv.slice(2);
const script = /<script>([^]*)<\/script>/.exec(fs.readFileSync(page, "utf8"))[1];

const elements = {}, headings = {}, handlers = [];
const element = id => (elements[id] ??= {innerHTML: ""});
const select = value => ({value, options: [], add(option) { this.options.push(option); this.value ??= option.value; }});
let families = null;
const form = {
  elements: {dataset: select(), protocol: select("left_out")},
  addEventListener: (_, handler) => handlers.push(handler),
  querySelectorAll: () => (families ?? [...element("families").innerHTML.matchAll(/value="([^"]*)" checked/g)].map(m => m[1])).map(value => ({value})),
};
const document = {
  querySelector: () => form,
  getElementById: element,
  querySelectorAll: () => [...element("table").innerHTML.matchAll(/<th data-key="(\w+)"/g)].map(m => (headings[m[1]] = {dataset: {key: m[1]}})),
};
function Option(value) { this.value = value; }

new Function("document", "Option", script)(document, Option);
const drawn = () => Object.fromEntries(Object.entries(elements).map(([id, each]) => [id, each.innerHTML]));
const all = [drawn()];
for (const choice of JSON.parse(choices)) {
  form.elements.dataset.value = choice.dataset ?? form.elements.dataset.value;
  form.elements.protocol.value = choice.protocol ?? form.elements.protocol.value;
  families = choice.families ?? families;
  handlers.forEach(handler => handler());
  if (choice.sort) headings[choice.sort].onclick();
  all.push(drawn());
}
console.log(JSON.stringify({datasets: form.elements.dataset.options.map(option => option.value), all}));
