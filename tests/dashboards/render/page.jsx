// A whole dashboard in its grid: ?board=NAME of data.json.
import { dateTime, EventBusSrv, locationUtil } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider, PortalContainer, ThemeContext } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import { panelFrames, theme } from './frames.js';
import { CUSTOM_DEFAULTS, Nothing, PANELS } from './panels.jsx';

const WIDTH = 1600, COLUMNS = 24, CELL = 30, GAP = 8;
window.__grafana_public_path__ = '/';
locationUtil.initialize({ config: { appSubUrl: '' }, getVariablesUrlParams: () => ({}), getTimeRangeForUrl: () => ({}) });

function place({ x, y, w, h }) {
  const column = (WIDTH - GAP * 2 - GAP * (COLUMNS - 1)) / COLUMNS;
  return {
    left: GAP * 2 + x * (column + GAP) - GAP, top: y * (CELL + GAP), width: w * column + (w - 1) * GAP, height: h * CELL + (h - 1) * GAP,
  };
}

// Where Grafana would draw a line: a timestamp as the value says so itself, a sample where its series begins or goes on after a pause.
function notes({ board, annotations }, scrape) {
  return board.annotations.list.flatMap((note, n) =>
    note.enable === false ? [] : annotations[n].flatMap(({ values }) => {
      if (note.useValueForTime) {
        return [...new Set(values.map(([, v]) => Number(v)))].map((at) => ({ at, color: note.iconColor }));
      }
      return values.filter(([at], k) => k === 0 || at - values[k - 1][0] > 1.5 * scrape).map(([at]) => ({ at: at * 1000, color: note.iconColor }));
    })
  );
}

function Panel({ panel, frames, answers, ...more }) {
  const { left, top, width, height } = place(panel.gridPos);
  const style = { position: 'absolute', left, top, width, height };
  if (panel.type === 'row') {
    return <div style={{ ...style, fontSize: 17, fontWeight: 500, lineHeight: `${height}px`, color: theme.colors.text.primary }}>⌄ {panel.title}</div>;
  }
  const Kind = PANELS[panel.type];
  const empty = panel.targets.every(({ refId }) => !answers[refId].length);
  return (
    <div style={style}>
      <PanelChrome title={panel.title} width={width} height={height} padding={panel.type === 'table' ? 'none' : 'md'}>
        {(w, h) => (empty ? <Nothing width={w} height={h} /> : <Kind panel={panel} frames={frames} answers={answers} width={w} height={h} {...more} />)}
      </PanelChrome>
    </div>
  );
}

async function main() {
  const data = await (await fetch('/data.json')).json();
  const shown = data.dashboards[new URLSearchParams(location.search).get('board')];
  const timeRange = { from: dateTime(data.from * 1000), to: dateTime(data.to * 1000) };
  timeRange.raw = { from: timeRange.from, to: timeRange.to };
  const panels = shown.board.panels;
  const frames = await Promise.all(panels.map((p) => (p.type === 'row' ? [] : panelFrames(p, shown.panels[p.id], data.scrape, CUSTOM_DEFAULTS[p.type] ?? {}))));
  const height = Math.max(...panels.map(({ gridPos }) => place(gridPos).top + place(gridPos).height)) + GAP;
  const context = { eventsScope: 'x', eventBus: new EventBusSrv() };
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={context}>
        <div style={{ position: 'relative', width: WIDTH, height, background: theme.colors.background.canvas }}>
          {panels.map((panel, n) => (
            <Panel key={panel.id} panel={panel} frames={frames[n]} answers={shown.panels[panel.id]} timeRange={timeRange} notes={notes(shown, data.scrape)} step={data.scrape} />
          ))}
        </div>
        <PortalContainer />
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
  // Set when nothing went wrong while it was drawn: shoot.py takes the height from here.
  setTimeout(() => { document.title ||= String(height); }, 3000);
}

function fail(error) {
  document.title = 'failed';
  document.body.textContent = error?.stack ?? String(error);
}

window.addEventListener('error', ({ error, message }) => fail(error ?? message));
main().catch(fail);
