import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

/** Where the pictures of the README are. */
const PICTURES = fileURLToPath(new URL('pictures/', import.meta.url));
const FONT = 'system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif';

/** Colours of one theme. Those for outcomes differ in lightness too, and are told apart with any kind of colour vision. */
export interface Theme {
  readonly name: 'light' | 'dark';
  readonly text: string;
  readonly faint: string;
  /** Our own line or bar, and those of the others. */
  readonly ours: string;
  readonly others: string;
  /** What became of a request: answered, refused with a 503, a connection refused, lost. */
  readonly answered: string;
  readonly refused: string;
  readonly closed: string;
  readonly lost: string;
}

// Okabe and Ito's palette, whose pairs stay apart in deuteranopia, protanopia and tritanopia.
const THEMES: readonly Theme[] = [
  {
    name: 'light',
    ...{ text: '#1f2328', faint: '#d1d9e0', ours: '#0072b2', others: '#8c959f' },
    ...{ answered: '#0072b2', refused: '#e69f00', closed: '#8c959f', lost: '#a40e26' },
  },
  {
    name: 'dark',
    ...{ text: '#f0f6fc', faint: '#3d444d', ours: '#56b4e9', others: '#9198a1' },
    ...{ answered: '#56b4e9', refused: '#e69f00', closed: '#6e7681', lost: '#ff7b72' },
  },
];

/**
 * Draws one picture for light pages and one for dark ones: `pictures/NAME-light.svg` and `pictures/NAME-dark.svg`.
 * @param spec in Vega-Lite, which lays out the axes and the labels
 */
export async function draw(name: string, spec: (theme: Theme) => TopLevelSpec): Promise<void> {
  mkdirSync(PICTURES, { recursive: true });
  for (const theme of THEMES) {
    const styled: TopLevelSpec = {
      ...spec(theme),
      background: 'transparent',
      config: { ...style(theme), ...spec(theme).config },
    };
    const view = new View(parse(compile(styled).spec), { renderer: 'none' });
    writeFileSync(`${PICTURES}${name}-${theme.name}.svg`, `${await view.toSVG()}\n`);
    view.finalize();
  }
}

function style({ text, faint }: Theme): TopLevelSpec['config'] {
  return {
    font: FONT,
    axis: {
      ...{ labelColor: text, titleColor: text, gridColor: faint, domainColor: faint, tickColor: faint },
      ...{ labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal' },
    },
    legend: {
      labelColor: text,
      titleColor: text,
      labelFontSize: 12,
      labelLimit: 0,
      orient: 'top',
      symbolType: 'square',
    },
    header: { labelColor: text, titleColor: text, labelFontSize: 13 },
    title: { color: text, subtitleColor: text, fontSize: 14, subtitleFontSize: 12, anchor: 'start' },
    text: { color: text, fontSize: 12 },
    view: { stroke: 'transparent' },
    // The text beside the picture says what is in it; a label for each of a hundred bars does not.
    aria: false,
  };
}
