// Holds grafana/dashboards/*.json to the types of @grafana/schema: check.mjs DIRECTORY_OF_THE_JSON.
//
// Each panel, and each dashboard without its panels, becomes an object literal that has to satisfy its type: literals
// are the only thing that TypeScript refuses unknown keys in. A second lot, each with one mistake, has to be refused.
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

const directory = process.argv[2];
const boards = fs.readdirSync(directory).filter((name) => name.endsWith('.json')).sort()
  .map((name) => [name, JSON.parse(fs.readFileSync(path.join(directory, name), 'utf8'))]);

const all = (type) => boards.flatMap(([, board]) => board.panels).filter((panel) => panel.type === type);
const some = (type) => structuredClone(all(type)[0]);

// What is wrong, and the panel or the dashboard that it is wrong in.
const MISTAKES = [
  ['a unit that is a number', () => ({ ...some('stat'), fieldConfig: { defaults: { unit: 5 }, overrides: [] } })],
  ['an unknown option', () => ({ ...some('stat'), options: { ...some('stat').options, colourMode: 'value' } })],
  ['a colour mode there is none of', () => ({ ...some('stat'), options: { ...some('stat').options, colorMode: 'rainbow' } })],
  ['a draw style there is none of', () => edited(some('timeseries'), (p) => { p.fieldConfig.defaults.custom.drawStyle = 'columns'; })],
  ['an unknown field option', () => edited(some('timeseries'), (p) => { p.fieldConfig.defaults.custom.fillOpaque = 1; })],
  ['a legend without a placement', () => edited(some('timeseries'), (p) => { delete p.options.legend.placement; })],
  ['an override of an unknown property', () => edited(some('table'), (p) => { p.fieldConfig.overrides = [{ matcher: { id: 'byName' }, properties: [{ id: 'custom.wide', value: 1 }] }]; })],
  ['an override with a wrong value', () => edited(some('table'), (p) => { p.fieldConfig.overrides = [{ matcher: { id: 'byName' }, properties: [{ id: 'decimals', value: 'two' }] }]; })],
  ['a threshold without a colour', () => edited(some('stat'), (p) => { p.fieldConfig.defaults.thresholds.steps = [{ value: null }]; })],
  ['a mapping of no known type', () => edited(some('state-timeline'), (p) => { p.fieldConfig.defaults.mappings[0].type = 'values'; })],
  ['a heat map without a colour scheme', () => edited(some('heatmap'), (p) => { delete p.options.color.scheme; })],
  ['a query without an expression', () => edited(some('bargauge'), (p) => { delete p.targets[0].expr; })],
  ['a panel without a place', () => edited(some('row'), (p) => { p.gridPos = { x: 0, y: 0 }; })],
  ['a schema version that is a text', () => ({ ...boards[0][1], schemaVersion: '42' })],
  ['a variable of no known type', () => edited(structuredClone(boards[0][1]), (b) => { b.templating.list[1].type = 'queries'; })],
  ['an unknown key of a dashboard', () => ({ ...boards[0][1], time_picker: {} })],
];

function edited(thing, change) {
  change(thing);
  return thing;
}

const files = new Map();

function add(name, thing) {
  const type = thing.panels && !thing.type ? 'Board' : `Panels['${thing.type}']`;
  const literal = JSON.stringify(type === 'Board' ? { ...thing, panels: [] } : thing, null, 1);
  files.set(`${name}.ts`, `import type { Board, Panels } from './board';\nexport default ${literal} satisfies ${type};\n`);
}

for (const [name, board] of boards) {
  add(name, board);
  board.panels.forEach((panel) => add(`${name}, panel ${panel.id}`, panel));
}
const shipped = files.size;
MISTAKES.forEach(([name, make]) => add(`seeded: ${name}`, make()));

const options = { strict: true, noEmit: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler };
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists, readFile } = host;
const ours = (name) => files.get(path.basename(name));
host.getSourceFile = (name, ...more) => (ours(name) ? ts.createSourceFile(name, ours(name), options.target) : getSourceFile(name, ...more));
host.fileExists = (name) => Boolean(ours(name)) || fileExists(name);
host.readFile = (name) => ours(name) ?? readFile(name);
const program = ts.createProgram([...files.keys()].map((name) => path.resolve(name)), options, host);

const said = new Map([...files.keys()].map((name) => [name, []]));
const elsewhere = [];
for (const { file, messageText, start } of ts.getPreEmitDiagnostics(program)) {
  const line = file ? file.text.slice(0, start).split('\n').length - 1 : 0;
  const words = `${file ? file.text.split('\n')[line].trim() : ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n  ')}`;
  (said.get(path.basename(file?.fileName ?? '')) ?? elsewhere).push(words);
}
const wrong = [...elsewhere];
for (const [name, complaints] of said) {
  if (name.startsWith('seeded: ') ? !complaints.length : complaints.length) {
    wrong.push(name.startsWith('seeded: ') ? `${name}: it was not refused` : `${name}: ${complaints.join('\n')}`);
  }
}
if (wrong.length) {
  console.error(wrong.join('\n\n'));
  process.exit(1);
}
console.log(`${boards.length} dashboards, ${shipped - boards.length} panels satisfy @grafana/schema; ${MISTAKES.length} mistakes were refused`);
