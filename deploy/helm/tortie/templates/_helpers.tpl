{{- define "tortie.labels" -}}
app.kubernetes.io/name: tortie
{{- end }}

{{- define "tortie.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Where kubelet asks for health; called with "listen". */}}
{{- define "tortie.probes" -}}
livenessProbe:
  httpGet: {host: {{ .host | default "127.0.0.1" | quote }}, port: {{ .port }}, path: /livez}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {host: {{ .host | default "127.0.0.1" | quote }}, port: {{ .port }}, path: /readyz}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* Where to listen; called with "listen". */}}
{{- define "tortie.listen" -}}
{{ if contains ":" .host }}[{{ .host }}]{{ else }}{{ .host }}{{ end }}:{{ .port }}
{{- end }}

{{/* The kinds of crds/. */}}
{{- define "tortie.kinds" -}}
- bgpconfigurations
- bgpfilters
- bgppeers
- blockaffinities
- caliconodestatuses
- clusterinformations
- felixconfigurations
- globalnetworkpolicies
- globalnetworksets
- hostendpoints
- ipamblocks
- ipamconfigurations
- ipamhandles
- ippools
- ipreservations
- kubecontrollersconfigurations
- networkpolicies
- networksets
- stagedglobalnetworkpolicies
- stagedkubernetesnetworkpolicies
- stagednetworkpolicies
- tiers
{{- end }}

{{- /* The settings: those of here, and over them those of a ConfigMap that is nobody's but the cluster's administrators'. */ -}}
{{- define "tortie.config" -}}
- name: config
  projected:
    sources:
      - configMap: {name: tortie-config}
      # What you set goes over that key by key, and stays as it is when this is applied anew.
      - configMap: {name: tortie-settings, optional: true, items: [{key: agent.yaml, path: agent.yaml.d/settings.yaml}]}
{{- end }}
