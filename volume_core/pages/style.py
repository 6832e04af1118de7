"""The style of a page: scoped by one class, readable on whatever stands behind it.

Always true: no rule reaches outside `.volume-page`; nothing is loaded; text has the host page's own colour (that of
tables is said, for a page without a doctype would give them another), lines and surfaces are see-through greys, and the
few colours of ours are dark enough for white and light enough for black.
"""

from __future__ import annotations

STYLE = """
.volume-page{--vp-line:rgba(128,128,128,.35);--vp-soft:rgba(128,128,128,.1);--vp-blue:#3578b8;--vp-orange:#c8752a;
--vp-green:#26854b;--vp-red:#cf4743;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;
max-width:60rem;box-sizing:border-box;padding:.25rem;overflow-wrap:anywhere}
.volume-page *{box-sizing:border-box}
.volume-page h2{font-size:1.35rem;line-height:1.25;margin:0 0 .15rem;font-weight:650}
.volume-page h3{font-size:1rem;margin:1.5rem 0 .5rem;font-weight:650}
.volume-page p{margin:.25rem 0}
.volume-page code,.volume-page pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
background:none;color:inherit;border:0;padding:0}
.volume-page pre{margin:.4rem 0;padding:.55rem .75rem;border-radius:6px;background:var(--vp-soft);white-space:pre-wrap;
word-break:break-all}
.volume-page a{color:var(--vp-blue)}
.volume-page .vp-id{font-weight:400;opacity:.7;font-size:.8em}
.volume-page .vp-message{white-space:pre-wrap;margin:0 0 .75rem}
.volume-page .vp-quiet{opacity:.68}
.volume-page .vp-facts{display:grid;grid-template-columns:minmax(6.5rem,max-content) 1fr;gap:.2rem 1rem;margin:.75rem 0}
.volume-page .vp-facts dt{opacity:.68}
.volume-page .vp-facts dd{margin:0;min-width:0}
.volume-page .vp-facts code{word-break:break-all}
.volume-page .vp-charts{display:flex;flex-wrap:wrap;gap:.75rem}
.volume-page .vp-card{flex:1 1 17rem;min-width:0;border:1px solid var(--vp-line);
border-radius:8px;padding:.6rem .75rem .4rem}
.volume-page .vp-big{font-size:1.5rem;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.volume-page .vp-chart{display:block;width:100%;max-width:27rem;height:auto;margin:.5rem 0 0;color:inherit}
.volume-page .vp-bytes{--vp-own:var(--vp-blue)}
.volume-page .vp-files{--vp-own:var(--vp-orange)}
.volume-page .vp-grid{stroke:var(--vp-line);stroke-width:1}
.volume-page .vp-tick{fill:currentColor;opacity:.75;font-size:10.5px;font-family:inherit}
.volume-page .vp-line{fill:none;stroke:var(--vp-own);stroke-width:2;stroke-linejoin:round}
.volume-page .vp-area{fill:var(--vp-own);opacity:.13}
.volume-page .vp-dot{fill:var(--vp-own)}
.volume-page .vp-near{opacity:0}
.volume-page .vp-scroll{overflow-x:auto}
.volume-page table{border-collapse:collapse;width:100%;color:inherit;font:inherit;
margin:.4rem 0;font-variant-numeric:tabular-nums}
.volume-page th,.volume-page td{text-align:left;padding:.22rem .6rem .22rem 0;border:0;
border-bottom:1px solid var(--vp-line);
vertical-align:top;background:none;color:inherit;font-weight:400}
.volume-page th{opacity:.68;font-size:.9em;white-space:nowrap}
.volume-page .vp-right{text-align:right;white-space:nowrap;padding-left:.6rem}
.volume-page .vp-kind{white-space:nowrap}
.volume-page tr>:last-child{padding-right:0}
.volume-page .vp-path{min-width:6rem;width:100%}
.volume-page .vp-mark{display:inline-block;border-radius:99px;padding:0 .55rem;margin:0 .35rem .25rem 0;
white-space:nowrap;border:1px solid currentColor;font-size:.9em}
.volume-page .vp-added{color:var(--vp-green)}
.volume-page .vp-removed{color:var(--vp-red)}
.volume-page .vp-modified{color:var(--vp-blue)}
.volume-page .vp-metadata{color:inherit;opacity:.75}
.volume-page .vp-note{border-left:3px solid var(--vp-line);padding:.1rem .75rem;margin:.6rem 0}
.volume-page .vp-warning{border-left-color:var(--vp-red)}
.volume-page ul{margin:.25rem 0;padding-left:1.2rem}
.volume-page a{text-decoration:none}
.volume-page a:hover{text-decoration:underline}
.volume-page a code{color:inherit}
.volume-page tbody tr:hover{background:var(--vp-soft)}
.volume-page .vp-head{color:var(--vp-green)}
.volume-page .vp-tag{color:var(--vp-orange)}
.volume-page .vp-when{white-space:nowrap;padding-right:1rem}
.volume-page .vp-told{width:100%;min-width:10rem;max-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.volume-page .vp-history td{height:36px;padding-top:0;padding-bottom:0;vertical-align:middle;border-bottom:0}
.volume-page .vp-history .vp-mark,.volume-page .vp-volumes .vp-mark{margin-bottom:0;line-height:1.35;font-size:.82em}
.volume-page .vp-history td+td{white-space:nowrap}
.volume-page .vp-graph{display:block}
.volume-page .vp-edge{fill:none;stroke:var(--vp-own);stroke-width:2}
.volume-page .vp-fades{stroke-dasharray:2 3;opacity:.6}
.volume-page .vp-knot{fill:var(--vp-own)}
.volume-page .vp-lane0{--vp-own:var(--vp-blue)}
.volume-page .vp-lane1{--vp-own:var(--vp-orange)}
.volume-page .vp-lane2{--vp-own:var(--vp-green)}
.volume-page .vp-lane3{--vp-own:var(--vp-red)}
.volume-page .vp-crumbs{font-size:1rem;margin:.25rem 0 .5rem}
.volume-page .vp-name{white-space:nowrap;padding-right:1.25rem}
.volume-page .vp-volumes td{padding-top:.4rem;padding-bottom:.4rem}
"""
