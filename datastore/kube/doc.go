// Package kube is a datastore in a Kubernetes API server.
package kube
