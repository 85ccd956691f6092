#!/bin/bash
# Draws grafana/pictures/: run by hand after a change of the dashboards, not a test (20 minutes, 640 MB of npm packages for
# the time being). Then look at the pictures.
#
# Usage: tests/dashboards/render.sh [--binary PATH] [--seconds N]
#
# 1. render/scenario.py has two supervisors and a Prometheus that scrapes them every second live through ten bad minutes, and
#    writes down what Prometheus answers to every query of the dashboards.
# 2. render/*.jsx draws it with Grafana's component library (npm @grafana/ui, @grafana/data): frames, field configuration,
#    transformations, panels, legends and axes are Grafana's. Heat map and state timeline are not in the library: of those
#    only axes, colours and legend are. So are the rows' titles and the annotations ours.
# 3. Chromium takes the pictures.
#
# Needs node 18 and npm; as root on Debian it installs chromium, Grafana's font and webp.
set -euo pipefail
cd "$(dirname "$0")"
pictures=$PWD/../../grafana/pictures
missing=()
for package in chromium fonts-inter-variable webp; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
[ ${#missing[@]} -eq 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/site" "$folder/out"
cp render/package.json render/*.js render/*.jsx "$folder"
npm install --prefix "$folder" --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error >/dev/null
(cd "$folder" && npx esbuild page.jsx --bundle --minify --outfile=site/page.js --jsx=automatic --log-level=error \
  --define:process.env.NODE_ENV='"production"' --loader:.svg=dataurl --loader:.png=dataurl --loader:.ttf=dataurl)
cp -r render/page.html "$folder/node_modules/@grafana/ui/dist/public" "$folder/site"
render/scenario.py "$folder/site/data.json" "$@"
render/shoot.py "$folder/site" "$folder/out"
mkdir -p "$pictures"
for picture in "$folder"/out/*.png; do
  cwebp -quiet -near_lossless 0 -m 6 "$picture" -o "$pictures/$(basename "${picture%.png}").webp"
done
ls -l "$pictures"
