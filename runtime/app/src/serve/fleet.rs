//! `--render`: the feeds dealt out to machines, as manifests for an orchestrator that is there already.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use sightline_config::{FeedSettings, Settings};

use crate::cli::{Form, ServeArgs};

/// Frames a second of a feed that sets no limit, for dealing out.
const USUAL_FPS: f64 = 30.0;
const CONFIG: &str = "/etc/sightline/serve.toml";
const DATA: &str = "/var/lib/sightline";
/// More than the three seconds that `serve` takes.
const GRACE_S: u32 = 10;

/// One process of the fleet.
struct Machine {
    name: String,
    feeds: Vec<String>,
    toml: String,
    port: u16,
    /// An address in it has a password.
    secret: bool,
}

/// The manifests as text.
pub(super) fn render(args: &ServeArgs, settings: &Settings, form: Form) -> Result<String> {
    let text =
        std::fs::read_to_string(&args.config).with_context(|| format!("settings file {:?}", args.config))?;
    render_text(&text, settings, form, args.machines, &args.image)
}

fn render_text(text: &str, settings: &Settings, form: Form, machines: usize, image: &str) -> Result<String> {
    if machines > settings.feeds.len() {
        bail!("--machines: expected at most one for each of {} feeds, got {machines}", settings.feeds.len());
    }
    let contained = form != Form::Systemd;
    if contained
        && let Some((name, feed)) = settings.feeds.iter().find(|(_, feed)| feed.input.starts_with("/dev/"))
    {
        bail!(
            "feeds.{name}.input: expected an address that a container can reach, got {:?}; use --render systemd",
            feed.input
        );
    }
    let Some(listen) = settings.serve.listen else {
        bail!("serve.listen: expected an address for probes and Prometheus, got none");
    };
    // In a container the loopback is the container's own.
    let listen =
        if contained { SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), listen.port()) } else { listen };
    let machines: Vec<Machine> = deal(&settings.feeds, machines)
        .into_iter()
        .enumerate()
        .map(|(at, feeds)| machine(text, settings, at, feeds, listen))
        .collect::<Result<_>>()?;
    Ok(match form {
        Form::Kubernetes => kubernetes(&machines, image),
        Form::Compose => compose(&machines, image),
        Form::Systemd => systemd(&machines),
    })
}

/// The most frequent first, each to whoever has least: at most 4/3 of the best there is (Graham 1969).
fn deal(feeds: &BTreeMap<String, FeedSettings>, machines: usize) -> Vec<Vec<String>> {
    let mut by_rate: Vec<(f64, &String)> =
        feeds.iter().map(|(name, feed)| (feed.max_fps.unwrap_or(USUAL_FPS), name)).collect();
    by_rate.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let mut dealt = vec![(0.0_f64, Vec::new()); machines];
    for (fps, name) in by_rate {
        if let Some((load, names)) = dealt.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)) {
            *load += fps;
            names.push(name.clone());
        }
    }
    dealt
        .into_iter()
        .map(|(_, mut names)| {
            names.sort();
            names
        })
        .collect()
}

fn machine(
    text: &str,
    settings: &Settings,
    at: usize,
    feeds: Vec<String>,
    listen: SocketAddr,
) -> Result<Machine> {
    let mut file: toml::Table = text.parse().context("the settings file")?;
    if let Some(all) = file.get_mut("feeds").and_then(toml::Value::as_table_mut) {
        all.retain(|name, _| feeds.iter().any(|of| of == name));
    }
    let serve = file.entry("serve").or_insert_with(|| toml::Table::new().into());
    if let Some(serve) = serve.as_table_mut() {
        serve.insert("listen".into(), listen.to_string().into());
    }
    let has_password = |name: &String| {
        settings
            .feeds
            .get(name)
            .is_some_and(|feed| crate::observe::without_secrets(&feed.input) != feed.input)
    };
    Ok(Machine {
        name: format!("sightline-{at}"),
        secret: feeds.iter().any(has_password),
        feeds,
        toml: toml::to_string(&file).context("the settings of a machine")?,
        port: listen.port(),
    })
}

fn indented(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") })
        .collect()
}

fn kubernetes(machines: &[Machine], image: &str) -> String {
    let mut text = String::new();
    for Machine { name, feeds, toml, port, secret } in machines {
        let (kind, data, volume) = if *secret {
            ("Secret", "stringData", format!("secret: {{secretName: {name}}}"))
        } else {
            ("ConfigMap", "data", format!("configMap: {{name: {name}}}"))
        };
        // A pod does not notice that its settings changed; its template does.
        let hash: String =
            Sha256::digest(toml.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(
            text,
            "\
---
# {name}: {}
apiVersion: v1
kind: {kind}
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: sightline, app.kubernetes.io/instance: {name}}}
{data}:
  serve.toml: |
{}---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: sightline, app.kubernetes.io/instance: {name}}}
spec:
  replicas: 1
  # Two at once would open every camera twice.
  strategy: {{type: Recreate}}
  selector:
    matchLabels: {{app.kubernetes.io/name: sightline, app.kubernetes.io/instance: {name}}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: sightline, app.kubernetes.io/instance: {name}}}
      annotations:
        prometheus.io/scrape: \"true\"
        prometheus.io/port: \"{port}\"
        prometheus.io/path: /metrics
        sightline/settings: \"{hash}\"
    spec:
      terminationGracePeriodSeconds: {GRACE_S}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{app.kubernetes.io/name: sightline}}
      containers:
        - name: sightline
          image: {image:?}
          command: [sightline, serve, --config, {CONFIG}]
          workingDir: {DATA}
          ports:
            - {{name: http, containerPort: {port}}}
          livenessProbe:
            httpGet: {{path: /healthz, port: http}}
            periodSeconds: 10
            timeoutSeconds: 2
            failureThreshold: 3
          readinessProbe:
            httpGet: {{path: /readyz, port: http}}
            periodSeconds: 5
            timeoutSeconds: 2
          volumeMounts:
            - {{name: settings, mountPath: /etc/sightline, readOnly: true}}
            - {{name: data, mountPath: {DATA}}}
      volumes:
        - name: settings
          {volume}
        - name: data
          emptyDir: {{}}
",
            feeds.join(", "),
            indented(toml, 4),
        );
    }
    text
}

fn compose(machines: &[Machine], image: &str) -> String {
    let mut text = String::from("# Compose 2.23.1 or later: settings stand in the file itself.\nservices:\n");
    for (at, Machine { name, feeds, port, .. }) in machines.iter().enumerate() {
        let outside = usize::from(*port) + at;
        let _ = write!(
            text,
            "\
  # {}
  {name}:
    image: {image:?}
    entrypoint: [sightline, serve, --config, {CONFIG}]
    working_dir: {DATA}
    restart: unless-stopped
    stop_grace_period: {GRACE_S}s
    ports: [\"127.0.0.1:{outside}:{port}\"]
    healthcheck:
      # No client is needed in the image.
      test: [CMD, bash, -c, \"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /healthz HTTP/1.0\\\\r\\\\n\\\\r\\\\n' >&3; head -1 <&3 | grep -q 200\"]
      interval: 10s
      timeout: 3s
      start_period: 60s
    configs:
      - {{source: {name}, target: {CONFIG}}}
    volumes:
      - {name}:{DATA}
",
            feeds.join(", ")
        );
    }
    text.push_str("configs:\n");
    for Machine { name, toml, .. } in machines {
        // Compose would put variables in.
        let _ = write!(text, "  {name}:\n    content: |\n{}", indented(&toml.replace('$', "$$"), 6));
    }
    text.push_str("volumes:\n");
    for Machine { name, .. } in machines {
        let _ = writeln!(text, "  {name}: {{}}");
    }
    text
}

fn systemd(machines: &[Machine]) -> String {
    let mut text = format!(
        "\
# file: /etc/systemd/system/sightline.service (every machine)
[Unit]
Description=Sightline
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/local/bin/sightline serve --config {CONFIG}
# Where libonnxruntime.so is, unless the loader finds it:
# Environment=SIGHTLINE_ONNXRUNTIME=/usr/local/lib/libonnxruntime.so
Restart=always
RestartSec=1
TimeoutStopSec={GRACE_S}
DynamicUser=yes
SupplementaryGroups=video
StateDirectory=sightline
WorkingDirectory={DATA}
ProtectHome=yes
ProtectSystem=strict
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"
    );
    for (at, Machine { feeds, toml, secret, .. }) in machines.iter().enumerate() {
        let mode = if *secret { "; it has passwords" } else { "" };
        let _ = write!(
            text,
            "\n# file: {CONFIG} (machine {} of {}: {}{mode})\n{toml}",
            at + 1,
            machines.len(),
            feeds.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use sightline_config::Layer;

    use super::*;

    const TEXT: &str = "\
# The yard.
[model]
name = \"nano\"
[serve]
listen = \"127.0.0.1:9000\"
[feeds.a]
input = \"rtsp://u:pa$s@cam-a/1\"
prompts = \"point=1,1\"
[feeds.b]
input = \"rtsp://cam-b/1\"
prompts = \"box=1,2,30,40\"
max_fps = 5
[feeds.c]
input = \"rtsp://cam-c/1\"
queries = \"find=the \\\"red\\\" car\"
max_fps = 20
[feeds.d]
input = \"rtsp://cam-d/1\"
prompts = \"point=1,1\"
max_fps = 6
";

    fn settings(text: &str) -> Settings {
        Settings::resolve([Layer::from_toml("f", text).unwrap()]).unwrap()
    }

    fn rendered(form: Form, machines: usize) -> String {
        render_text(TEXT, &settings(TEXT), form, machines, "house/sightline:1").unwrap()
    }

    /// The settings that stand in a manifest, after `marker`, indented by `by`.
    fn embedded(text: &str, marker: &str, by: usize) -> Vec<Settings> {
        let indent = " ".repeat(by);
        let taken = |part: &str| {
            let lines = part.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with(&indent));
            lines.map(|line| line.strip_prefix(&indent).unwrap_or("")).collect::<Vec<_>>().join("\n")
        };
        text.split(marker).skip(1).map(|part| settings(&taken(part).replace("$$", "$"))).collect()
    }

    fn feeds_of(machines: &[Settings]) -> Vec<Vec<&str>> {
        machines.iter().map(|machine| machine.feeds.keys().map(String::as_str).collect()).collect()
    }

    #[test]
    fn feeds_are_dealt_by_their_rates() {
        let feeds = settings(TEXT).feeds;
        assert_eq!(deal(&feeds, 1), [["a", "b", "c", "d"]]);
        assert_eq!(deal(&feeds, 2), [vec!["a"], vec!["b", "c", "d"]], "30 and 20 + 6 + 5");
        assert_eq!(deal(&feeds, 4).concat().len(), 4);
    }

    #[test]
    fn every_form_holds_every_feed_once_and_whole() {
        let whole = settings(TEXT);
        let cases = [
            (Form::Kubernetes, "  serve.toml: |", 4, "0.0.0.0:9000"),
            (Form::Compose, "    content: |", 6, "0.0.0.0:9000"),
        ];
        for (form, marker, by, listen) in cases {
            let text = rendered(form, 2);
            let machines = embedded(&text, marker, by);
            assert_eq!(feeds_of(&machines), [vec!["a"], vec!["b", "c", "d"]], "{form:?}");
            for machine in machines {
                assert_eq!(machine.serve.listen, Some(listen.parse().unwrap()), "{form:?}");
                assert_eq!(machine.model, whole.model);
                for (name, feed) in &machine.feeds {
                    assert_eq!(Some(feed), whole.feeds.get(name), "{form:?} {name}");
                }
            }
        }
        let text = rendered(Form::Systemd, 2);
        let files: Vec<Settings> = text
            .split("# file: /etc/sightline/")
            .skip(1)
            .map(|part| settings(part.split_once('\n').unwrap().1))
            .collect();
        assert_eq!(feeds_of(&files), [vec!["a"], vec!["b", "c", "d"]]);
        assert_eq!(files[0].serve.listen, Some("127.0.0.1:9000".parse().unwrap()), "the machine's own");
    }

    #[test]
    fn manifests_have_what_an_orchestrator_needs() {
        let text = rendered(Form::Kubernetes, 2);
        for part in [
            "kind: Secret\nmetadata:\n  name: sightline-0\n",
            "kind: ConfigMap\nmetadata:\n  name: sightline-1\n",
            "          secret: {secretName: sightline-0}\n",
            "          configMap: {name: sightline-1}\n",
            "httpGet: {path: /healthz, port: http}",
            "httpGet: {path: /readyz, port: http}",
            "prometheus.io/scrape: \"true\"\n        prometheus.io/port: \"9000\"",
            "image: \"house/sightline:1\"",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let hash = |text: &str| text.split("sightline/settings: ").nth(1).unwrap()[..18].to_owned();
        let changed = TEXT.replace("cam-a", "cam-x");
        let other = render_text(&changed, &settings(&changed), Form::Kubernetes, 2, "i").unwrap();
        assert_ne!(hash(&text), hash(&other), "other settings make another pod");
        let text = rendered(Form::Compose, 2);
        for part in [
            "\"127.0.0.1:9000:9000\"",
            "\"127.0.0.1:9001:9000\"",
            "GET /healthz",
            "pa$$s",
            "  sightline-1: {}\n",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let text = rendered(Form::Systemd, 1);
        for part in ["Restart=always", "TimeoutStopSec=10", "WantedBy=multi-user.target", "it has passwords"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn what_cannot_be_rendered_is_named() {
        let refused = |text: &str, form, machines| {
            render_text(text, &settings(text), form, machines, "i").unwrap_err().to_string()
        };
        let camera = TEXT.replace("rtsp://cam-b/1", "/dev/video0");
        assert!(refused(&camera, Form::Compose, 1).starts_with("feeds.b.input: expected an address"));
        assert!(render_text(&camera, &settings(&camera), Form::Systemd, 1, "i").is_ok());
        assert!(
            refused(TEXT, Form::Systemd, 5).starts_with("--machines: expected at most one for each of 4")
        );
        let silent = TEXT.replace("127.0.0.1:9000", "");
        assert!(refused(&silent, Form::Kubernetes, 1).starts_with("serve.listen: expected"));
    }
}
