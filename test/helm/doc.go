// Package helm makes deploy/tortie.yaml out of the chart in deploy/helm/tortie, and tests both. It is a module of its own,
// since it renders with Helm's own engine, which nothing else here needs.
//
//	go test ./...            is the manifest what the chart renders by default?
//	go test ./... -update    write it anew
package helm
