// One component for each type of panel. Stat, bar gauge, table and time series are Grafana's; state timeline and heat
// map are not on npm: here Grafana's axes, colours and legend surround our own drawing.
import { FieldType, formattedValueToString, getDisplayValueAlignmentFactors, getFieldDisplayValues, getValueFormat } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation, VizOrientation } from '@grafana/schema';
import { BarGauge, BigValue, TimeSeries, UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { buckets, theme } from './frames.js';

export const CUSTOM_DEFAULTS = {
  timeseries: {
    axisPlacement: 'auto', axisLabel: '', barAlignment: 0, barWidthFactor: 0.6, drawStyle: 'line', fillOpacity: 0, gradientMode: 'none',
    insertNulls: false, lineInterpolation: 'linear', lineWidth: 1, pointSize: 5, scaleDistribution: { type: 'linear' }, showPoints: 'auto',
    spanNulls: false, stacking: { mode: 'none', group: 'A' }, thresholdsStyle: { mode: 'off' },
  },
  table: { align: 'auto', cellOptions: { type: 'auto' } },
};

function displayValues({ panel, frames, sparkline }) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text, theme, data: frames,
    sparkline, timeZone: 'utc',
  });
}

export function Stat({ panel, frames, width, height }) {
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => displayValues({ panel, frames, sparkline: options.graphMode !== 'none' })}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, alignmentFactors, count }) => (
        <BigValue
          value={value.display} sparkline={value.sparkline} count={count} colorMode={options.colorMode} graphMode={options.graphMode}
          justifyMode={options.justifyMode} textMode={options.textMode} alignmentFactors={alignmentFactors} text={options.text}
          width={width} height={height} theme={theme}
        />
      )}
      width={width} height={height} source={frames} itemSpacing={3} renderCounter={0} autoGrid={true} orientation={VizOrientation.Auto}
    />
  );
}

export function Bars({ panel, frames, width, height }) {
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => displayValues({ panel, frames })}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, alignmentFactors, orientation, count }) => (
        <BarGauge
          value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} width={width} height={height}
          orientation={orientation} text={options.text} theme={theme} itemSpacing={8} lcdCellWidth={12} displayMode={options.displayMode}
          alignmentFactors={count > 1 ? alignmentFactors : undefined} showUnfilled={options.showUnfilled ?? true}
          valueDisplayMode={options.valueMode} namePlacement={options.namePlacement ?? 'auto'} isOverflow={false}
        />
      )}
      width={width} height={height} source={frames} itemSpacing={8} renderCounter={0} orientation={options.orientation}
      minVizWidth={options.minVizWidth ?? 8} minVizHeight={options.minVizHeight ?? 16} maxVizHeight={options.maxVizHeight ?? 300}
    />
  );
}

export function Table({ panel, frames, width, height, timeRange }) {
  if (!frames.length || !frames[0].length) {
    return <Nothing width={width} height={height} />;
  }
  const { cellHeight, showHeader, sortBy } = panel.options;
  return (
    <TableNG
      data={frames[0]} width={width} height={height} noHeader={!showHeader} cellHeight={cellHeight} initialSortBy={sortBy} showTypeIcons={false}
      timeRange={timeRange} resizable={true} fieldConfig={panel.fieldConfig} structureRev={1} getActions={() => []} enableVirtualization={false}
    />
  );
}

export function Series({ panel, frames, width, height, timeRange, notes }) {
  if (!frames.length) {
    return <Nothing width={width} height={height} />;
  }
  const seen = new WeakSet();
  return (
    <TimeSeries frames={frames} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={panel.options.legend} options={panel.options}>
      {(config) => {
        if (!seen.has(config)) {
          seen.add(config);
          config.addHook('draw', (plot) => annotate(plot, notes));
        }
        return null;
      }}
    </TimeSeries>
  );
}

function annotate(plot, notes) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = window.devicePixelRatio;
  ctx.setLineDash([4 * window.devicePixelRatio, 4 * window.devicePixelRatio]);
  for (const { at, color } of notes) {
    const x = plot.valToPos(at, 'x', true);
    if (x >= bbox.left && x <= bbox.left + bbox.width) {
      ctx.strokeStyle = color;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

export function Nothing({ width, height }) {
  return <div style={{ width, height, display: 'flex', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>No data</div>;
}

function timeAxis(config, timeRange) {
  config.addScale({ scaleKey: 'x', orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right, isTime: true,
    range: () => [timeRange.from.valueOf(), timeRange.to.valueOf()] });
  config.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: 'utc', theme });
}

// Rows of labels from top to bottom, and what is drawn in them.
function rows(names, timeRange, draw) {
  const config = new UPlotConfigBuilder('utc');
  timeAxis(config, timeRange);
  config.addScale({ scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Down, range: () => [0, names.length] });
  config.addAxis({ scaleKey: 'y', placement: AxisPlacement.Left, theme, grid: { show: false }, ticks: { show: false }, splits: names.map((_, n) => n + 0.5),
    values: () => names });
  config.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => null, show: true, lineColor: 'transparent' });
  config.addHook('draw', (plot) => {
    plot.ctx.save();
    draw(plot, (at) => plot.valToPos(at, 'x', true), (row) => plot.valToPos(row, 'y', true));
    plot.ctx.restore();
  });
  return config;
}

const PLOT_DATA = (timeRange) => [[timeRange.from.valueOf(), timeRange.to.valueOf()], [0, 0]];

export function Timeline({ panel, frames, width, height, timeRange }) {
  const fields = frames.map((frame) => frame.fields.find((f) => f.type === FieldType.number));
  const names = fields.map((field) => field.config.displayNameFromDS);
  const config = rows(names, timeRange, ({ ctx }, x, y) => {
    fields.forEach((field, row) => {
      const times = frames[row].fields[0].values;
      const step = frames[row].fields[0].config.interval;
      const inset = ((1 - panel.options.rowHeight) / 2) * (y(1) - y(0));
      times.forEach((at, n) => {
        ctx.fillStyle = field.display(field.values[n]).color;
        ctx.fillRect(x(at), y(row) + inset, Math.ceil(x(at + step) - x(at)) + 1, y(row + 1) - y(row) - 2 * inset);
      });
    });
  });
  const mapped = Object.values(panel.fieldConfig.defaults.mappings[0].options);
  const items = mapped.map(({ text, color }) => ({ label: text, color, yAxis: 1 }));
  const { placement, displayMode } = panel.options.legend;
  return (
    <VizLayout width={width} height={height} legend={<VizLayout.Legend placement={placement}><VizLegend items={items} placement={placement} displayMode={displayMode} /></VizLayout.Legend>}>
      {(w, h) => <UPlotChart config={config} data={PLOT_DATA(timeRange)} width={w} height={h} timeRange={timeRange} />}
    </VizLayout>
  );
}

const VIRIDIS = ['#440154', '#482878', '#3e4989', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#b5de2b', '#fde725'];

export function Heatmap({ panel, answers, width, height, timeRange, step }) {
  const all = buckets(answers.A).reverse();
  const most = Math.max(...all.flatMap(({ counts }) => [...counts.values()]));
  const unit = getValueFormat(panel.options.yAxis.unit);
  const names = all.map(({ bound }) => (Number.isFinite(bound) ? formattedValueToString(unit(bound)) : '+Inf'));
  const config = rows(names, timeRange, ({ ctx }, x, y) => {
    all.forEach(({ counts }, row) => {
      for (const [at, count] of counts) {
        if (count > panel.options.filterValues.le) {
          ctx.fillStyle = VIRIDIS[Math.min(9, Math.floor(((count / most) ** panel.options.color.exponent) * 10))];
          ctx.fillRect(x((at - step) * 1000), y(row) + 1, Math.max(2, x(at * 1000) - x((at - step) * 1000)), y(row + 1) - y(row) - 1);
        }
      }
    });
  });
  return <UPlotChart config={config} data={PLOT_DATA(timeRange)} width={width} height={height} timeRange={timeRange} />;
}

export const PANELS = { stat: Stat, bargauge: Bars, table: Table, timeseries: Series, 'state-timeline': Timeline, heatmap: Heatmap };
