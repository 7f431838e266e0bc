"""How a report looks: a style sheet for light and dark, phone and desktop, with the system's own fonts."""

CSS = """
:root {
  --page: #f5f6f8; --card: #ffffff; --ink: #1c2530; --faint: #667080; --line: #e2e6eb;
  --accent: #2563c9; --other: #b9c2ce; --wrong: #b42318; --warn: #fff6e5; --warn-line: #f0c36d; --code: #f2f4f7;
  --good: #1a7f4b; --middling: #9a6510;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e1217; --card: #171c23; --ink: #e4e8ee; --faint: #98a3b1; --line: #2a323d;
    --accent: #6ea0f5; --other: #4c5866; --wrong: #ff8a7a; --warn: #2b2415; --warn-line: #7a5f20; --code: #10151b;
    --good: #58c48a; --middling: #e0ab52;
  }
  img.chart { filter: invert(1) hue-rotate(180deg) contrast(.86) brightness(1.12); mix-blend-mode: lighten; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.5; overflow-wrap: break-word;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  font-size: 15px; font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
header, section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 26px; margin-bottom: 18px;
}
h1 { font-size: 26px; line-height: 1.2; margin: 2px 0 0; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 14px; margin: 18px 0 6px; }
p { margin: 6px 0; }
img { max-width: 100%; }
.eyebrow { color: var(--faint); font-size: 13px; display: flex; gap: 10px; align-items: center; flex-wrap: wrap; }
.state { border: 1px solid currentColor; border-radius: 99px; padding: 0 9px; font-size: 12px; }
.state.finished { color: var(--good); }
.state.failed { color: var(--wrong); }
.state.interrupted, .state.running { color: var(--middling); }
.note { color: var(--faint); }
.faint, .caption { color: var(--faint); font-size: 13.5px; }
.score { display: grid; grid-template-columns: minmax(210px, 4fr) 7fr; gap: 34px; align-items: center; }
.score, .tiles { margin-top: 18px; }
.big { font-size: 58px; line-height: 1.05; font-weight: 700; letter-spacing: -.03em; color: var(--accent); }
.row { margin-bottom: 11px; }
.row > div:first-child { display: flex; justify-content: space-between; gap: 12px; font-size: 14px; }
.row b { font-weight: 600; }
.track { margin-top: 3px; position: relative; height: 12px; border-radius: 6px; background: var(--code); }
.track span { position: absolute; inset: 0 auto 0 0; border-radius: 6px; background: var(--other); }
.ours .track span { background: var(--accent); }
.track i { position: absolute; top: -3px; height: 18px; min-width: 3px; border: solid var(--ink); border-width: 0 1px; }
.verdict { font-size: 14px; margin-top: 14px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px 34px; padding-top: 16px; border-top: 1px solid var(--line); }
.tiles div { display: flex; flex-direction: column; }
.tiles b { font-size: 18px; font-weight: 600; }
.tiles span { color: var(--faint); font-size: 13px; }
.warnings { background: var(--warn); border-color: var(--warn-line); }
ul { margin: 0; padding-left: 20px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 22px; margin: 12px 0; font-size: 14px; }
dt { color: var(--faint); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 8px; padding: 9px 13px; margin: 4px 0;
  overflow-x: auto;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
.chart { display: block; margin: 0 auto; }
.narrow { width: 560px; }
.sheet { display: block; }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--faint); font-weight: 500; font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
.bar { display: inline-block; min-width: 130px; padding-left: 2px; border-bottom: 3px solid;
  border-image: linear-gradient(90deg, var(--accent) var(--share), var(--line) var(--share)) 1; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 14px; }
.cards.texts { grid-template-columns: 1fr; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; height: 130px; object-fit: contain; background: var(--code); }
.pixels { image-rendering: pixelated; }
figcaption { padding: 8px 10px; font-size: 13px; overflow-wrap: anywhere; }
figcaption small { display: block; color: var(--faint); }
blockquote { margin: 10px 12px 0; font-size: 14px; }
.wrong { color: var(--wrong); }
@media (max-width: 700px) {
  main { padding: 10px 8px 40px; }
  header, section { padding: 16px 14px; border-radius: 10px; }
  .score { grid-template-columns: 1fr; gap: 14px; }
  .big { font-size: 48px; }
  .charts { grid-template-columns: 1fr; }
  .wide { max-width: none; width: 680px; }
  .bar { min-width: 64px; }
  td, th { padding-right: 10px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 8px; }
  .cards { grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 9px; }
}
@media print { body { background: white; } section, header { break-inside: avoid; } }
"""
