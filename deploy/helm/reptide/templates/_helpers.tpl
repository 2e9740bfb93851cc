{{- define "reptide.selector" -}}
app.kubernetes.io/name: reptide
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "reptide.labels" -}}
{{ include "reptide.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "reptide.name" -}}
{{ printf "%s-%s" (.root.Release.Name | trunc 40 | trimSuffix "-") .component }}
{{- end }}

{{/* What a process is given: a pod made anew when any of it changes. */}}
{{- define "reptide.settings" -}}
reptide.toml: {{ required "settings: the settings file is required" .Values.settings | quote }}
{{- range $name, $text := .Values.files }}
{{ $name }}: {{ $text | quote }}
{{- end }}
{{- end }}

{{/* A pod that runs the command with the arguments given; `served` where it answers probes, `role` its own values. */}}
{{- define "reptide.pod" -}}
{{- $values := .root.Values -}}
{{- $secretEnv := mergeOverwrite (deepCopy $values.secretEnv) .role.secretEnv -}}
{{- $secretFiles := .role.secretFiles | default $values.secretFiles -}}
enableServiceLinks: false
automountServiceAccountToken: false
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: reptide
    image: {{ printf "%s:%s" $values.image.repository ($values.image.tag | default .root.Chart.AppVersion) }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ toJson .args }}
    workingDir: /etc/reptide
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    env:
      - {name: REPTIDE_SERVICE__HOST, value: "0.0.0.0"}
      - {name: REPTIDE_SERVICE__PORT, value: "9464"}
      {{- if eq (.device | default "cpu") "cuda" }}
      - {name: REPTIDE_RUN__DEVICE, value: cuda}
      {{- end }}
      {{- range $name, $text := $values.env }}
      - {name: {{ $name }}, value: {{ $text | quote }}}
      {{- end }}
      {{- range $name, $key := $secretEnv }}
      - name: {{ $name }}
        valueFrom:
          secretKeyRef: {name: {{ $key.name }}, key: {{ $key.key }}}
      {{- end }}
    {{- if .served }}
    ports:
      - {name: metrics, containerPort: 9464}
    # Python, torch and joining the group; much less than two minutes.
    startupProbe:
      httpGet: {path: /healthz, port: metrics}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 24
    # 503: the loop made no progress for a minute and the longest that a server may keep it waiting.
    livenessProbe:
      httpGet: {path: /healthz, port: metrics}
      periodSeconds: 20
      timeoutSeconds: 5
      failureThreshold: 3
    # 503: a server is away, or a worker is more than service.ready_lag events behind. It restarts nothing.
    readinessProbe:
      httpGet: {path: /readyz, port: metrics}
      periodSeconds: 10
      timeoutSeconds: 5
    {{- end }}
    {{- with .resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - {name: settings, mountPath: /etc/reptide, readOnly: true}
      {{- if $secretFiles }}
      - {name: secrets, mountPath: /etc/reptide-secrets, readOnly: true}
      {{- end }}
volumes:
  - name: settings
    configMap: {name: {{ include "reptide.name" (dict "root" .root "component" "settings") }}}
  {{- if $secretFiles }}
  - name: secrets
    secret: {secretName: {{ $secretFiles }}, defaultMode: 0440}
  {{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
