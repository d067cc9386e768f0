"""report.html: what a run made of a text, as one page for a person.

`facts` finds what the last run left, `page` makes the text of it; nothing else here reads a store.
The page needs no network, and the same artifacts give the same bytes. Its charts and its map are
drawn by Apache ECharts, of which `assets/echarts.min.js` is the published file of 6.1.0: it places
labels so that none hides another, takes a mouse and fingers, and runs where a page may evaluate
nothing (Vega compiles its expressions), in a fifth of Plotly's bytes and with nothing to install.
"""

FILE = "report.html"
