// The types that Grafana publishes for what is in a dashboard, put together for the kinds of panels that ours have.
import type * as schema from '@grafana/schema';
import type * as raw from '@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as statetimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// As JSON: an enumeration of texts is the texts.
type Json<T> = T extends string ? `${T}` : T extends (infer Item)[] ? Json<Item>[] : T extends object ? { [Key in keyof T]: Json<T[Key]> } : T;

// What a field may be, with the options of one kind of panel. Theirs takes any other key as well.
type FieldConfig<Custom> = Omit<schema.FieldConfig, 'custom' | 'links'> & { custom?: Partial<Custom>; links?: DataLink[] };
type Property<Custom> =
  | { [Key in keyof FieldConfig<Custom> & string]-?: { id: Key; value: FieldConfig<Custom>[Key] } }[keyof FieldConfig<Custom> & string]
  | { [Key in keyof Custom & string]-?: { id: `custom.${Key}`; value: Custom[Key] } }[keyof Custom & string];

// Not in the package: what @grafana/data says of a data link, and the Prometheus data source of its query and its annotation.
interface DataLink { title: string; url: string; targetBlank?: boolean }
interface PromQuery extends schema.DataQuery {
  expr: string; format?: 'time_series' | 'table' | 'heatmap'; instant?: boolean; range?: boolean; interval?: string; legendFormat?: string;
  editorMode?: 'code' | 'builder';
}
interface PromAnnotation extends schema.AnnotationQuery {
  expr: string; step: string; tagKeys: string; textFormat: string; titleFormat: string; useValueForTime: boolean;
}

// Grafana fills in the rest of a link of a panel.
type PanelLink = Partial<raw.DashboardLink> & Pick<raw.DashboardLink, 'title' | 'url'>;

interface Kind<Type extends string, Options, Custom>
  extends Required<Pick<schema.Panel, 'id' | 'title' | 'description' | 'gridPos' | 'datasource'>>,
    Pick<schema.Panel, 'transformations' | 'interval' | 'maxDataPoints' | 'timeFrom'> {
  type: Type;
  options: Options;
  fieldConfig: {
    defaults: FieldConfig<Custom>;
    overrides: { matcher: schema.MatcherConfig; properties: Property<Custom>[] }[];
  };
  targets: PromQuery[];
  links?: PanelLink[];
}

// Panels by type. The package has defaults for every option of a stat and a bar gauge, of the others only for some.
export interface Panels {
  row: Json<schema.RowPanel>;
  stat: Json<Kind<'stat', Partial<stat.Options>, {}>>;
  bargauge: Json<Kind<'bargauge', Partial<bargauge.Options>, {}>>;
  timeseries: Json<Kind<'timeseries', timeseries.Options, timeseries.FieldConfig>>;
  table: Json<Kind<'table', Partial<table.Options>, table.FieldConfig>>;
  heatmap: Json<Kind<'heatmap', heatmap.Options, heatmap.FieldConfig>>;
  'state-timeline': Json<Kind<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>>;
}

type Variable = Omit<schema.VariableModel, 'current'> & { current?: schema.VariableOption | {}; definition?: string };

// Everything but the panels, which are looked at one by one.
export type Board = Json<
  Omit<schema.Dashboard, 'panels' | 'templating' | 'annotations'> & {
    panels: [];
    templating: { list: Variable[] };
    annotations: { list: PromAnnotation[] };
  }
>;
