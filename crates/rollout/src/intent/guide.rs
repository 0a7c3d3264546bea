//! The grammar, explained: what can be said, how else, and every word that is known. Made from the tables that the
//! grammar itself reads by, so that it can't fall behind.

/// The whole grammar with examples, in Markdown: for people, and for a language model that is to write sentences. The
/// same as `docs/reference/sentences.md`.
pub const GUIDE: &str = include_str!("../../../../docs/reference/sentences.md");

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use jiff::Zoned;

    use super::GUIDE;
    use crate::intent::{read, words};

    /// A thing that can be said: what it is, its canonical sentence, and others that mean the same.
    struct Topic {
        title: &'static str,
        says: &'static str,
        sentences: &'static [(&'static str, &'static [&'static str])],
    }

    /// Everything that can be said. Of each row, the first is the canonical sentence.
    const TOPICS: &[Topic] = &[
        Topic {
            title: "What is to be done",
            says: "A sentence has one verb, and is about one service or job. `deploy` makes it or gives it another revision, \
                   `update` changes what is there, `scale` changes how many replicas there are, `rollback` goes back to the \
                   last good revision or to the one that is named, `abort` gives up the deployment under way, and `restart` \
                   starts the replicas anew. Without a verb, a version makes it a `deploy`. A name that is also a word of \
                   the grammar stands in quotes.",
            sentences: &[
                (
                    "deploy model-server v2.1",
                    &[
                        "roll out model-server v2.1",
                        "model-server:v2.1",
                        "push v2.1 to model-server",
                    ],
                ),
                (
                    "update model-server v2.1",
                    &["bump model-server to v2.1", "upgrade the model-server service to v2.1"],
                ),
                (
                    "update model-server from v2.0 to v2.1",
                    &["move model-server from v2.0 to v2.1"],
                ),
                (
                    "deploy model-server to version \"7\"",
                    &["deploy model-server version 7"],
                ),
                (
                    "scale inference to 8 replicas",
                    &["scale inference up to 8", "8 replicas for inference"],
                ),
                (
                    "rollback model-server",
                    &[
                        "roll back model-server",
                        "revert model-server",
                        "undo the deployment of model-server",
                    ],
                ),
                (
                    "rollback model-server to v1.9",
                    &["go back to v1.9 of model-server", "take model-server back to v1.9"],
                ),
                (
                    "abort model-server",
                    &[
                        "stop the rollout of model-server",
                        "cancel the deployment of model-server",
                    ],
                ),
                ("restart model-server", &["bounce model-server"]),
                ("deploy \"canary\" v2", &["roll out 'canary' v2"]),
            ],
        },
        Topic {
            title: "How many replicas",
            says: "Fixed, relative to what there is, or between bounds; within bounds the number can follow a load: CPU or GPU \
                   in percent, requests a second and replica, or requests that wait.",
            sentences: &[
                ("deploy inference, 8 replicas", &["deploy inference with eight copies"]),
                (
                    "scale inference, 3 more replicas",
                    &["add 3 replicas to inference", "scale inference up by 3"],
                ),
                (
                    "scale inference, 2 fewer replicas",
                    &["remove 2 replicas from inference"],
                ),
                (
                    "scale inference, replicas times 2",
                    &["double inference", "double the replicas of inference"],
                ),
                (
                    "scale inference, between 2 and 10 replicas",
                    &[
                        "scale inference 2-10",
                        "scale inference with at least 2 replicas and at most 10",
                    ],
                ),
                (
                    "scale inference, between 2 and 10 replicas, autoscale on cpu 70%",
                    &["autoscale inference 2-10 on cpu 70%"],
                ),
                (
                    "scale inference, between 1 and 4 replicas, autoscale on gpu 60%",
                    &["scale inference 1-4 and keep gpu at 60%"],
                ),
                (
                    "scale inference, at most 9 replicas, autoscale on 100 requests per second",
                    &["scale inference with up to 9 replicas, 100 rps per replica"],
                ),
                (
                    "scale inference, at least 2 replicas, autoscale on queue 5",
                    &["scale inference with at least 2 replicas, follow queue length 5"],
                ),
            ],
        },
        Topic {
            title: "What a replica gets",
            says: "GPUs with their model and memory, memory, and CPU: so much, so much more or less, or so many times as much.",
            sentences: &[
                (
                    "deploy trainer, 8 A100 80GB GPUs",
                    &["deploy trainer with 8x A100 80GB", "deploy trainer with 8 A100-80GB"],
                ),
                ("deploy trainer, A100 GPUs", &["deploy trainer on A100s"]),
                ("update trainer, 2 more GPUs", &["add 2 GPUs to trainer"]),
                ("deploy web, no GPUs", &["deploy web without GPUs"]),
                (
                    "update data-processor, memory 64Gi",
                    &[
                        "increase memory for data-processor to 64Gi",
                        "give data-processor 64Gi of memory",
                    ],
                ),
                (
                    "update data-processor, 8Gi more memory",
                    &["increase data-processor's memory by 8Gi"],
                ),
                (
                    "update data-processor, memory times 2",
                    &[
                        "double the memory of data-processor",
                        "increase memory for data-processor by 100%",
                    ],
                ),
                ("update web, 500m cpus", &["set cpu of web to 500m"]),
                ("update web, 2 more cpus", &["add 2 cores to web"]),
            ],
        },
        Topic {
            title: "What it runs, and where",
            says: "The image, the command (in quotes), the environment, the port, the namespace, the priority, and a timeout. \
                   Sizes and durations have units.",
            sentences: &[
                (
                    "deploy web, image \"ghcr.io/acme/web:v2\", port 8080",
                    &["deploy web from ghcr.io/acme/web:v2, listening on 8080"],
                ),
                (
                    "deploy trainer, image \"acme/train:v1\", command \"python train.py\"",
                    &["deploy trainer with image acme/train:v1 running \"python train.py\""],
                ),
                (
                    "deploy web v2, env LOG_LEVEL=\"debug\" WORKERS=\"4\"",
                    &["deploy web v2 with LOG_LEVEL=debug and WORKERS=4"],
                ),
                (
                    "deploy web v2, in namespace team-a",
                    &["deploy web v2 -n team-a", "deploy web v2 in the team-a namespace"],
                ),
                (
                    "deploy trainer, as a batch job, 8 A100 GPUs, priority high, timeout 2d",
                    &["run job trainer with 8 A100s, high priority, timeout 48h"],
                ),
            ],
        },
        Topic {
            title: "How the new revision takes the old one's place",
            says: "`rolling` is a few at a time, `canary` gives a part of the requests to the new revision first, `blue-green` \
                   starts a whole second set and switches once, `immediate` stops all of the old before the new start.",
            sentences: &[
                (
                    "deploy model-server v2.5, canary 10% then 25% then 50%",
                    &["deploy model-server v2.5, start with 10% of traffic, then 25%, then 50%"],
                ),
                ("deploy model-server v2.5, canary", &["canary model-server v2.5"]),
                (
                    "deploy api-server v3.0, blue-green, keep the old one for 30m, promote if healthy",
                    &["blue-green deploy api-server v3.0, switch after health check, keep the old one for 30m"],
                ),
                (
                    "update model-server v2.5, rolling, 20% at a time",
                    &["update model-server to v2.5 in batches of 20%"],
                ),
                (
                    "update model-server v2.5, rolling, max unavailable 1",
                    &["update model-server to v2.5 with max unavailable 1"],
                ),
                (
                    "update model-server v2.5, rolling, 1 at a time, waiting 1m between batches",
                    &["update model-server to v2.5 one by one, wait 1 minute between each"],
                ),
                (
                    "deploy model-server v2.5, immediate",
                    &[
                        "deploy model-server v2.5 all at once",
                        "deploy model-server v2.5 immediately",
                    ],
                ),
                (
                    "deploy model-server v2.5, safely",
                    &["carefully deploy model-server v2.5"],
                ),
                (
                    "deploy model-server v2.5, slowly",
                    &["gradually deploy model-server v2.5"],
                ),
                ("deploy model-server v2.5, quickly", &["deploy model-server v2.5 asap"]),
                (
                    "rollback model-server, emergency",
                    &["emergency rollback of model-server"],
                ),
            ],
        },
        Topic {
            title: "When it goes on, and when it goes back",
            says: "`promote` says when a canary or a blue-green deployment goes on: after a time, if conditions hold (all of \
                   them: joined by `and`), or by hand. `rollback if` names conditions of which each alone brings the old \
                   revision back (joined by `or`). A condition is a signal, a comparison, and a bound in the signal's unit: \
                   percent of requests for errors, a time for latency, a number for restarts and for requests a second; a \
                   metric by its name; a query in quotes. A window can follow: `for 5m`.",
            sentences: &[
                (
                    "deploy model-server v2.5, canary 10%, promote after 15m if errors < 0.5% and p99 latency < 200ms",
                    &[
                        "canary 10% model-server v2.5, promote after 15 minutes if error_rate < 0.5% and p99 latency below 200ms",
                    ],
                ),
                (
                    "deploy model-server v2.5, canary 10%, promote by hand",
                    &["deploy model-server v2.5, canary 10%, wait for approval"],
                ),
                (
                    "update model-server v2.1, rollback if errors > 1% or p99 latency > 200ms for 5m",
                    &[
                        "update model-server to v2.1, roll back when errors exceed 1% or p99 latency goes above 200ms for 5m",
                    ],
                ),
                (
                    "update model-server v2.1, rollback if errors > 0.5%",
                    &["update model-server to v2.1, rollback if availability < 99.5%"],
                ),
                (
                    "update model-server v2.1, rollback if restarts > 3 for 10m",
                    &["update model-server to v2.1, rollback if more than 3 crashes in 10m"],
                ),
                (
                    "update model-server v2.1, rollback if unhealthy",
                    &["update model-server to v2.1, rollback if health checks fail"],
                ),
                (
                    "update trainer v2, rollback if metric \"gpu.utilization\" < 20",
                    &["update trainer to v2, revert if gpu.utilization drops below 20%"],
                ),
                (
                    "update web v2, rollback if query \"sum(rate(x[1m]))\" > 5",
                    &["update web to v2, rollback if query \"sum(rate(x[1m]))\" is above 5"],
                ),
            ],
        },
        Topic {
            title: "When it begins, and why",
            says: "At once, unless a time is said: a time of day, a day and a time, a time from now, or another deployment's \
                   end. Times are in the zone of whoever asks, unless one is named. The reason goes to the end of the \
                   sentence, or stands in quotes.",
            sentences: &[
                (
                    "deploy new-model v2, on 2031-12-01 at 09:00 Europe/Berlin",
                    &["deploy new-model v2 on 2031-12-01 at 9am Europe/Berlin"],
                ),
                (
                    "deploy new-model v2, on 2031-12-01 at 14:00 UTC",
                    &["deploy new-model v2 at 2031-12-01T14:00:00Z"],
                ),
                (
                    "deploy new-model v2, after dep-x7k2m9q4ab",
                    &["deploy new-model v2 once dep-x7k2m9q4ab is complete"],
                ),
                (
                    "rollback model-server, because \"errors went up\"",
                    &["roll back model-server because errors went up"],
                ),
            ],
        },
    ];

    /// The guide, from the tables.
    fn made() -> String {
        let mut text = String::from(
            "# Sentences\n\n\
             What `clawbernetes deploy \"<sentence>\"` understands. A sentence is a verb, a name, perhaps a version, and clauses \
             in any order, joined by commas or by `and`, `then`, `with`, `but`. It is read by a grammar: what isn't in it is \
             refused with the words that aren't understood and the nearest that are, never guessed. Known words that are one \
             letter off are mended, and said; names, numbers and units never are. Where two readings make sense, both are \
             offered and none is taken.\n\n\
             Each row below has the canonical sentence first, as a plan repeats it; what follows it means the same.\n",
        );
        for topic in TOPICS {
            let _ = write!(text, "\n## {}\n\n{}\n\n", topic.title, topic.says);
            text.push_str("| canonical | or |\n| --- | --- |\n");
            for (canonical, others) in topic.sentences {
                let others: Vec<String> = others.iter().map(|other| format!("`{other}`")).collect();
                let _ = writeln!(text, "| `{canonical}` | {} |", others.join("<br>"));
            }
        }
        text.push_str(
            "\n## What is refused\n\n\
             Words that aren't known, two of what there is one of (targets, versions, strategies), a canary of 0 or 100 % or \
             with steps that shrink, 0 replicas, a least number above the greatest, numbers below zero, times that are past or \
             that clocks skip, conditions that face the wrong way or would promote and roll back at once, errors without \
             percent and latency without a unit, a canary on `scale`, and `don't`.\n\n\
             ## Every word\n\n\
             Names that are one of these stand in quotes.\n\n",
        );
        for (title, forms) in words::ALL.iter().filter(|(title, _)| !title.is_empty()) {
            let forms: Vec<String> = forms.iter().map(|form| format!("`{form}`")).collect();
            let _ = writeln!(text, "- {title}: {}", forms.join(", "));
        }
        let small: Vec<String> = words::ALL
            .iter()
            .filter(|(title, _)| title.is_empty())
            .flat_map(|(_, forms)| forms.iter().map(|form| format!("`{form}`")))
            .collect();
        let numbers: Vec<String> = words::NUMBERS
            .iter()
            .map(|(name, number)| format!("`{name}` ({number})"))
            .collect();
        let _ = writeln!(
            text,
            "- numbers: {}\n- small words: {}",
            numbers.join(", "),
            small.join(", ")
        );
        text
    }

    fn now() -> Zoned {
        "2026-11-20T15:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn every_row_means_one_thing() {
        for (canonical, others) in TOPICS.iter().flat_map(|topic| topic.sentences) {
            let intent = read(canonical, &now())
                .unwrap_or_else(|misread| panic!("{canonical}: {misread}"))
                .intent;
            assert_eq!(intent.to_string(), *canonical);
            for other in *others {
                let read = read(other, &now())
                    .unwrap_or_else(|misread| panic!("{other}: {misread}"))
                    .intent;
                assert_eq!(read.to_string(), *canonical, "{other}");
            }
        }
    }

    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/sentences.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, made()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            made(),
            "UPDATE_DOCS=1 writes it anew"
        );
        assert!(GUIDE.starts_with("# Sentences"));
    }
}
