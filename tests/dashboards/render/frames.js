// What Prometheus answered, as the data frames that Grafana's Prometheus data source would make of it, with the
// transformations and the field configuration of the panel applied by Grafana's own code.
import {
  applyFieldOverrides, cacheFieldDisplayNames, createTheme, FieldConfigOptionsRegistry, FieldType, standardFieldConfigEditorRegistry, standardTransformers,
  standardTransformersRegistry, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

export const theme = createTheme({ colors: { mode: 'dark' } });

const STANDARD = ['unit', 'decimals', 'min', 'max', 'color', 'mappings', 'thresholds', 'links', 'noValue', 'displayName'];
const property = (id, more = {}) => ({
  id, path: id, name: id, editor: () => null, override: () => null, process: (value) => value, shouldApply: () => true, settings: {}, ...more,
});
standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((id) => property(id)));
standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((transformation) => ({
    id: transformation.id, name: transformation.name, transformation, editor: () => null,
  }))
);

function registry(customNames) {
  return new FieldConfigOptionsRegistry(() => [
    ...STANDARD.map((id) => property(id)),
    ...customNames.map((name) => property(`custom.${name}`, { path: name, isCustom: true })),
  ]);
}

const number = (text) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

function legend(format, labels) {
  if (format) {
    return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
  }
  const shown = Object.entries(labels).filter(([name]) => name !== '__name__');
  return shown.length ? `{${shown.map(([name, value]) => `${name}="${value}"`).join(', ')}}` : 'Value';
}

function seriesFrames(target, result, step) {
  return result.map(({ metric, values, value }) => {
    const samples = values ?? [value];
    const name = legend(target.legendFormat, metric);
    const apart = (parseInt(target.interval ?? '15s') / 15) * step;
    return toDataFrame({
      refId: target.refId,
      name,
      fields: [
        { name: 'Time', type: FieldType.time, values: samples.map(([at]) => at * 1000), config: { interval: apart * 1000 } },
        { name: 'Value', type: FieldType.number, labels: metric, values: samples.map(([, v]) => number(v)), config: { displayNameFromDS: name } },
      ],
    });
  });
}

function tableFrame(target, result, several) {
  const names = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name) => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name] ?? '') });
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000) },
      ...names.map(column),
      { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({ value }) => number(value[1])) },
    ],
  });
}

// Cumulative buckets, each without those below it, in order of their bounds.
export function buckets(result) {
  const sorted = result.map((r) => ({ bound: number(r.metric.le), at: new Map(r.values.map(([t, v]) => [t, number(v)])) }));
  sorted.sort((a, b) => a.bound - b.bound);
  return sorted.map(({ bound, at }, n) => ({
    bound,
    counts: new Map([...at].map(([t, v]) => [t, Math.max(0, v - (n ? sorted[n - 1].at.get(t) ?? 0 : 0))])),
  }));
}

export async function panelFrames(panel, answers, step, customDefaults) {
  const targets = panel.targets ?? [];
  let frames = targets.flatMap((target) => {
    const result = answers[target.refId];
    return target.format === 'table' ? [tableFrame(target, result, targets.length > 1)] : seriesFrames(target, result, step);
  });
  if (panel.transformations) {
    frames = await firstValueFrom(transformDataFrame(panel.transformations, frames));
  }
  const { defaults, overrides } = panel.fieldConfig;
  const custom = { ...customDefaults, ...defaults.custom };
  const overridden = overrides.flatMap((o) => o.properties.map(({ id }) => id)).filter((id) => id.startsWith('custom.'));
  const names = new Set([...Object.keys(custom), ...overridden.map((id) => id.split('.')[1])]);
  const shown = applyFieldOverrides({
    data: frames,
    fieldConfig: { defaults: { ...defaults, custom, links: [] }, overrides },
    fieldConfigRegistry: registry([...names]),
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(shown);
  return panel.type === 'timeseries' ? shown.map(finite) : shown;
}

// What is no number is no point of a graph, as in Grafana's own panel.
function finite(frame) {
  const fields = frame.fields.map((f) => (f.type === FieldType.number ? { ...f, values: f.values.map((v) => (Number.isFinite(v) ? v : null)) } : f));
  return { ...frame, fields };
}
