//! Every word that the grammar knows, by what it says. The guide and the list of words that no name can be without
//! quotes are made from this.

use std::ops::Deref;

/// Forms of one thing: one or more words each, in lower case, parted by single spaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forms {
    /// Its place among [`ALL`].
    place: Place,
    forms: &'static [&'static str],
}

impl Forms {
    /// Its place among [`ALL`].
    pub const fn place(self) -> usize {
        self.place as usize
    }

    /// The forms themselves.
    pub const fn all(self) -> &'static [&'static str] {
        self.forms
    }
}

impl Deref for Forms {
    type Target = [&'static str];

    fn deref(&self) -> &Self::Target {
        self.forms
    }
}

macro_rules! tables {
    ($($name:ident $title:literal [$($form:literal),* $(,)?];)*) => {
        #[derive(Debug, Clone, Copy)]
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "each is called as its table is")]
        enum Place { $($name),* }
        $( pub(super) const $name: Forms = Forms { place: Place::$name, forms: &[$($form),*] }; )*
        /// All of them, each under what it says. An empty title: nothing that needs explaining.
        pub(super) const ALL: &[(&str, Forms)] = &[$(($title, $name)),*];
    };
}

tables! {
    // What is to be done.
    DEPLOY "deploy: make it, or give it another revision" [
        "deploy", "redeploy", "re-deploy", "launch", "roll out", "rollout", "ship", "release", "push", "push out", "start", "start up",
        "run", "create", "bring up", "spin up", "stand up", "put up", "install", "publish", "serve", "host",
        "do a deploy of", "do a deployment of", "do a rollout of",
    ];
    UPDATE "update: change what is there" [
        "update", "upgrade", "bump", "move", "change", "set", "modify", "patch", "give", "switch", "migrate", "downgrade", "make", "replace"];
    SCALE "scale: change the number of replicas" ["scale", "rescale", "resize", "autoscale", "auto-scale"];
    GROW "scale up" ["grow", "scale up", "scale out", "upscale"];
    SHRINK "scale down" ["shrink", "scale down", "scale in", "downscale"];
    RAISE "more of something" ["increase", "raise", "boost", "extend", "expand", "up"];
    LOWER "less of something" ["decrease", "reduce", "lower", "cut", "cut down", "drop"];
    ADD "so many more" ["add"];
    TAKE_AWAY "so many fewer" ["remove", "take away", "subtract"];
    DOUBLE "times 2" ["double", "twice", "twice as many", "twice as much", "twice the"];
    TRIPLE "times 3" ["triple", "treble", "three times as many", "three times as much", "three times the"];
    QUADRUPLE "times 4" ["quadruple"];
    HALVE "times 0.5" ["halve", "half", "in half", "half as many", "half as much", "half of", "half the"];
    ROLLBACK "rollback: go back to an earlier revision" [
        "rollback", "roll back", "roll-back", "revert", "undo", "go back", "switch back", "put back", "fall back", "back out",
        "emergency rollback of",
    ];
    PREVIOUS "the last good revision" ["previous version", "the previous version", "how it was", "as it was", "the way it was", "previous revision", "the previous revision", "the previous one", "previous release", "the previous release", "the last version", "last version", "the last good version", "last good version", "last good revision", "the last good revision", "the last known good version", "last known good", "the version before", "the old version", "the last stable version", "the previous stable version", "previous stable version", "the previous good version", "where it was", "the last good revision"];
    LAST "" ["the last", "the latest", "last", "latest", "the current", "the ongoing"];
    ELSEWHERE "refused: commands of their own" ["delete", "destroy", "terminate", "uninstall", "resume", "unpause", "pause", "promote", "drain", "remove"];
    ABORT "abort: give up the deployment under way, and go back" ["abort", "cancel", "call off"];
    STOP "abort, of a deployment" ["stop", "halt", "kill", "end"];
    THE_ROLLOUT "the deployment under way" ["rollout", "roll-out", "deployment", "deploy", "release", "update", "canary", "upgrade"];
    ROLLING_RESTART "restart, rolling" ["rolling restart", "do a rolling restart"];
    RESTART "restart: start the replicas anew, as they are" ["restart", "re-start", "bounce", "reboot"];
    ROLL "a verb in two parts: roll X out" ["roll", "bring", "take", "spin", "put"];
    BACK "the second part: back" ["back"];
    OUT "the second part: out" ["out", "up", "live"];
    UP "more" ["up", "out"];
    DOWN "fewer" ["down"];

    // Small words.
    AND "joins" ["and", "then", "and then", "but", "also", "plus", "&", "as well as", "and also", "with", "w/", "using", "via", "at the same time"];
    THE "" ["the", "a", "an", "this", "that", "our", "my", "its", "their", "new", "the new", "a new", "current", "running", "existing", "of the"];
    ALL_OF "" ["all replicas of", "every replica of", "all of", "all pods of", "all instances of"];
    OF "of which it is said" ["of", "for", "on"];
    TO "towards" ["to", "up to", "down to", "->"];
    FROM "from what" ["from"];
    BY "by how much" ["by"];
    AS "" ["as", "as a", "as an"];
    IT "" ["it", "them", "this one", "everything"];
    EACH "" ["each", "apiece", "per replica", "per pod", "per instance", "per copy", "for each replica", "on each replica", "per node", "in each replica"];
    MORE "more" ["more", "additional", "extra", "another", "further"];
    FEWER "fewer" ["fewer", "less"];
    TIMES "a multiple" ["times", "by a factor of", "x"];
    FACTOR "a multiple of what there is" ["a factor of"];
    BETWEEN "bounds" ["between", "anywhere between", "from"];
    THROUGH "bounds" ["and", "to", "-"];
    PLURALS "refused: a sentence is about one of them" ["services", "deployments", "workloads", "apps", "applications", "jobs", "models", "servers"];
    KIND "what the target is" [
        "service", "deployment", "workload", "app", "application", "model", "server", "microservice", "component", "stack",
    ];
    JOB "a batch job: runs once, to its end" ["job", "batch job", "as a job", "as a batch job", "batch", "as batch", "one-off", "one-shot", "run once", "to completion"];
    VERSION "a version" ["version", "revision", "tag", "release"];
    ENVIRONMENTS "not a name: say 'in namespace ...'" ["production", "prod", "staging", "stage", "dev", "development", "qa", "test", "testing"];

    // Passed over.
    POLITE "passed over" [
        "please", "pls", "plz", "kindly", "just", "simply", "now", "right now", "hey", "hi", "hello", "ok", "okay", "so", "thanks", "thank you", "thx", "cheers",
        "for me", "for us", "could you", "can you", "would you", "could you please", "can you please", "would you please", "will you",
        "can we", "could we", "shall we",
        "let's", "lets", "let us", "we need to", "i need to", "we want to", "i want to", "i want you to", "i need you to", "i'd like to", "i would like to",
        "i'd like you to", "we'd like to", "we would like to", "we should", "we have to", "we must", "you should",
        "it's time to", "it is time to", "go ahead and", "go", "make sure to", "be sure to", "need to", "want to", "finally", "of course",
        "everyone", "team", "claw", "clawbernetes", "with strategy", "strategy", "deployment strategy", "update strategy", "do a", "do an", "use", "use a", "a total of", "in total",
        "rollout strategy", "style", "that has", "which has", "having", "needs", "it needs", "needing",
    ];
    PRODUCTION "passed over: namespaces are said as 'in namespace ...'" [
        "to production", "in production", "on production", "into production", "to prod", "in prod", "into prod", "to the cluster", "on the cluster", "in the cluster", "onto the cluster", "to the fleet", "on the fleet", "to our cluster", "on our cluster",
    ];
    TROUBLE "taken as the reason" ["something's wrong", "something is wrong", "somethings wrong", "something went wrong", "it's broken", "it is broken", "it's on fire", "we have an outage"];
    NOT "refused: a sentence says what is to be done" ["don't", "do not", "dont", "not", "never", "without", "except", "unless", "no longer", "cannot", "can't", "won't", "shouldn't"];

    // Strategies.
    CANARY "canary: a part first, the rest when it has proven itself" ["canary", "canaried", "canary release", "canary deployment", "canary deploy", "canary rollout", "canary strategy", "canary update", "canarying"];
    START_WITH "a canary: the first part" ["start with", "starting with", "starting at", "starting from", "begin with", "beginning with", "beginning at", "begin at", "start at", "first to", "initially", "try on", "try it on", "test on", "test it on", "send", "shift", "route", "direct", "expose to", "give"];
    AT_PART "a part of the requests" ["at"];
    OF_TRAFFIC "a part of the requests" [
        "of traffic", "of the traffic", "of requests", "of the requests", "of users", "of the users", "traffic", "of all traffic", "of load", "of the load",
    ];
    REST "where a canary ends anyway" ["all", "everyone", "everybody", "everything", "the rest", "the rest of it", "all of it", "all traffic", "all of them"];
    FOR "how long a step lasts" ["for", "lasting", "for at least", "over"];
    FIRST "" ["first", "at first", "initially", "to start", "to start with", "to begin with"];
    BLUE_GREEN "blue-green: a whole second set, then one switch" [
        "blue-green", "blue/green", "bluegreen", "blue green", "blue-green deployment", "blue/green deployment", "blue green deployment", "blue-green strategy", "blue/green strategy", "blue-green deploy", "blue/green deploy", "blue green deploy", "red-black", "red/black", "b/g",
    ];
    ROLLING "rolling: a few at a time" [
        "rolling", "rolling update", "rolling deployment", "rolling deploy", "rolling upgrade", "rolling strategy", "rolling release", "rolling-update", "rolling restart",
    ];
    IMMEDIATE "immediate: all of the old are stopped, then the new are started" [
        "immediate", "immediately", "recreate", "all at once", "kill and replace", "stop and replace", "kill all then create", "big bang", "in one go", "immediate strategy", "recreate strategy", "immediate deploy", "immediate deployment", "immediate update", "immediate rollback",
    ];
    AT_A_TIME "so many at once" ["at a time", "at once", "per batch", "by batch", "each time", "per step"];
    BY_N "one after another" ["one by one", "one-by-one", "one after another", "one after the other"];
    TWO_BY_TWO "two at once" ["two by two"];
    IN_BATCHES "so many at once" ["in batches of", "in steps of", "in groups of", "batches of", "batch size", "with batches of", "with a batch size of", "batch size of"];
    MAX_UNAVAILABLE "so many fewer are ready meanwhile" ["max unavailable", "maxunavailable", "max-unavailable", "with max unavailable", "at most unavailable", "unavailable at most"];
    WAITING "rest between batches" ["waiting", "wait", "pausing", "pause", "pause for", "wait for", "resting", "rest", "waiting for", "pausing for", "with a pause of", "with pauses of", "a pause of", "pauses of", "with", "sleep", "sleeping"];
    BETWEEN_BATCHES "rest between batches" [
        "between batches", "between", "between each", "between them", "between replicas", "between each batch", "between the batches", "between each replica", "between every replica", "between every batch", "between steps", "in between", "between each one", "after each", "after each batch", "after each replica", "after every batch", "after every replica", "pause between batches",
    ];
    PAUSE_NOUN "" ["pause", "rest", "wait", "pauses", "delay"];
    PAUSE_BETWEEN "rest between batches" ["pause between", "pause between batches", "wait between batches", "with pause between batches"];
    KEEP_OLD "blue-green: how long the old set stays" [
        "keep the old one", "keep the old", "keep old", "keeping the old one", "keeping the old", "keep the old version", "keep the old set", "keep the old ones", "keep the old replicas", "keep the previous version", "keep blue", "keeping blue", "keep the blue", "keep the blue set", "keeping the old version", "keeping the old set", "keep it", "keep the old one around", "keep the old version around", "keep the old version running", "keep the old one running",
    ];
    SWITCH "blue-green: when it switches" ["switch", "switch over", "switching", "switchover", "cut over", "cutover", "switch traffic", "switch the traffic", "flip", "flip traffic", "flip over", "switch it", "swap"];

    // Conditions.
    PROMOTE "when it goes on" [
        "promote", "promoting", "promote it", "promotion", "auto-promote", "auto promote", "autopromote", "automatically promote", "promote automatically", "continue", "go on", "proceed", "finish", "complete", "complete it", "roll out the rest", "rollout the rest", "go to 100%", "promote to 100%", "promote to all", "promote to everyone", "go all in", "finish the rollout", "promote the canary", "promote to full rollout", "full rollout",
    ];
    GO_BACK "when it goes back" [
        "rollback", "roll back", "roll-back", "roll it back", "revert", "revert it", "undo", "undo it", "abort", "abort it", "go back", "fall back", "back out", "auto-rollback", "auto rollback", "autorollback", "automatic rollback", "automatically roll back", "automatically rollback", "rollback automatically", "roll back automatically", "automatically revert", "rolling back", "reverting", "cancel", "stop", "stop it", "cancel it",
        "auto-revert", "automatic rollbacks",
    ];
    IF "a condition" ["if", "when", "once", "as soon as", "in case", "in case of", "on", "if and only if", "only if", "provided", "provided that", "as long as", "whenever", "if ever", "the moment", "so long as"];
    AFTER "a time, then" ["after", "in", "once", "following", "after at least"];
    BY_HAND "it waits for a person" [
        "promote by hand", "promote manually", "manual promotion", "manually promote", "wait for approval", "wait for my approval", "waiting for approval", "require approval", "requires approval", "pause before promoting", "pause before promotion", "hold for approval", "ask before promoting", "wait for me", "wait for my ok", "wait before promoting", "approval required", "needs approval", "manual approval", "hand promotion", "promotion by hand", "i'll promote it", "i will promote it", "don't promote automatically", "do not promote automatically", "no auto-promote", "no automatic promotion", "switch by hand", "switch manually", "manual switch",
    ];
    HEALTHY "its replicas are ready and stay so" [
        "healthy", "is healthy", "it is healthy", "it's healthy", "its healthy", "all healthy", "all is healthy", "everything is healthy", "everything's healthy", "they are healthy", "they're healthy", "it stays healthy", "stays healthy", "still healthy", "it is still healthy", "ready", "it is ready", "it's ready", "all replicas are ready", "all replicas are healthy", "replicas are healthy", "replicas are ready", "health check", "health checks", "the health check", "the health checks", "a health check", "health check passes", "health checks pass", "the health check passes", "the health checks pass", "health checks passed", "health check succeeds", "health checks succeed", "passing health checks", "it passes health checks", "it passes its health checks", "all health checks pass", "health", "all is well", "everything is fine", "it is fine", "it's fine", "it looks good", "it looks healthy", "all good", "it remains healthy", "remains healthy", "it is up", "it's up", "health check success",
    ];
    UNHEALTHY "its replicas aren't ready" [
        "unhealthy", "is unhealthy", "it is unhealthy", "it's unhealthy", "it becomes unhealthy", "it gets unhealthy", "becomes unhealthy", "not healthy", "it isn't healthy", "it is not healthy", "isn't healthy", "is not healthy", "not ready", "it isn't ready", "it is not ready", "it fails", "health check fails", "health checks fail", "the health check fails", "the health checks fail", "a health check fails", "health check failure", "health check failures", "failed health checks", "failing health checks", "it fails its health checks", "it fails health checks", "any replica is unhealthy", "replicas are unhealthy", "unhealthy replicas", "any health check fails", "it breaks", "it's broken", "it is broken", "it stops being healthy",
    ];
    CRASHING "replicas that had to start anew" ["it crashes", "crashes", "it restarts", "it crash loops", "it crashloops", "crash loop", "crash loops", "crashlooping", "it is crashing", "it's crashing", "replicas crash", "replicas restart", "any replica crashes", "any replica restarts", "a replica crashes", "a replica restarts", "any crash", "any crashes", "any restart", "any restarts", "pods crash", "it keeps crashing", "it keeps restarting", "it dies", "there are crashes", "there are restarts"];
    ANY_ERRORS "any request that failed" ["any error", "any errors", "there are errors", "there are any errors", "it errors", "there is an error", "there's an error", "errors appear", "errors occur", "requests fail"];
    NO_ERRORS "no request failed" ["no errors", "there are no errors", "without errors", "no error", "error-free", "error free"];
    NO_CRASHES "nothing had to start anew" ["no crashes", "no restarts", "there are no crashes", "there are no restarts", "nothing crashes", "nothing restarts"];
    ERROR_RATE "share of the requests that failed" [
        "errors", "error", "error rate", "error_rate", "error-rate", "errorrate", "errors rate", "failures", "failure rate", "failure_rate", "failed requests", "5xx", "5xx rate", "5xx errors", "5xxs", "http errors", "request errors", "rate of errors", "error ratio", "server errors", "error percentage",
    ];
    SUCCESS_RATE "share of the requests that didn't fail" ["success rate", "success_rate", "success-rate", "availability", "successes", "successful requests"];
    LATENCY "time to answer" ["latency", "latencies", "response time", "response times", "response_time", "request latency", "request duration", "time to answer", "tail latency", "latency_seconds"];
    MEDIAN "the median" ["median"];
    MEAN "refused: say which percentile" ["mean", "average", "avg"];
    PERCENTILE "a percentile" ["percentile"];
    REQUEST_RATE "requests a second" ["request rate", "request_rate", "requests per second", "requests/s", "requests a second", "rps", "qps", "req/s", "throughput", "traffic", "rate of requests", "queries per second", "requests_per_second"];
    RESTARTS "starts anew of its replicas" ["restarts", "restart count", "crashes", "crash count", "restart", "crash", "replica restarts", "pod restarts", "container restarts"];
    QUERY "what a PromQL query answers" ["query", "promql", "prometheus query", "prometheus"];
    METRIC "a metric by its name" ["metric", "the metric", "custom metric"];
    LINKS "" ["is", "are", "stay", "stays", "remain", "remains", "goes", "go", "gets", "get", "keeps", "has", "have", "was", "were", "be", "rate is", "it has", "there are", "we see", "it sees", "of"];
    ABOVE "more than the bound" [">", "above", "over", "exceeds", "exceed", "exceeding", "more than", "greater than", "higher than", "beyond", "rises above", "rise above", "goes above", "go above", "goes over", "go over", "climbs above", "spikes above", "gets above", "jumps above", "larger than", "bigger than", "rises over", "in excess of", "worse than", "slower than", "stays above", "passes", "crosses", "tops", "longer than"];
    AT_LEAST "the bound or more" [">=", "=>", "at least", "reaches", "reach", "hits", "hit", "no less than", "not below", "not less than", "above or at", "no fewer than", "or more"];
    BELOW "less than the bound" ["<", "below", "under", "less than", "lower than", "fewer than", "drops below", "drop below", "falls below", "fall below", "stays under", "stays below", "stay under", "stay below", "goes below", "go below", "goes under", "drops under", "falls under", "smaller than", "beneath", "remains below", "remains under", "sinks below", "dips below", "better than", "faster than", "is below", "shorter than"];
    AT_MOST "the bound or less" ["<=", "=<", "at most", "no more than", "not above", "not more than", "not over", "up to", "maximum", "max"];
    EQUALS "refused: give a bound" ["=", "==", "equals", "equal to", "is exactly", "is equal to"];
    OR "joins conditions to go back on" ["or", "or if", "or when", "||"];
    AND_IF "joins conditions to go on with" ["and", "and if", "and when", "&&", "while", "and the", "and its"];
    WINDOW "how much of the past is looked at" ["for", "over", "within", "in", "over the last", "in the last", "for the last", "during", "for at least", "for more than", "over a window of", "in a window of", "across", "over the past", "for the past", "in the past", "for over", "over any"];
    DEGREES "degrees" ["c", "°c", "degrees", "celsius", "degrees celsius"];
    WATTS "watts" ["w", "watts", "watt"];
    PER_SECOND "" ["requests per second", "requests/s", "rps", "qps", "req/s", "requests a second", "per second", "/s", "requests/second", "requests per sec", "queries per second"];

    // When.
    AT "a time of day" ["at", "starting at", "beginning at", "scheduled at", "schedule at", "scheduled for", "schedule for", "start at", "starting", "schedule it for", "schedule it at", "@"];
    ON "a day" ["on", "on the"];
    IN "a time from now" ["in", "starting in", "after waiting"];
    FROM_NOW "a time from now" ["from now", "later"];
    AFTER_DEPLOYMENT "when another deployment is complete" ["after", "once", "when", "following"];
    IS_COMPLETE "" ["completes", "is complete", "is done", "finishes", "is finished", "succeeds", "ends", "has finished", "has completed"];
    TODAY "today" ["today"];
    TONIGHT "tonight" ["tonight", "this evening"];
    TOMORROW "tomorrow" ["tomorrow"];
    NEXT "the next one" ["next", "coming", "this coming"];
    AM "before noon" ["am", "a.m", "a.m."];
    PM "after noon" ["pm", "p.m", "p.m."];
    NOON "12:00" ["noon", "midday"];
    MIDNIGHT "00:00" ["midnight"];
    MONDAY "Monday" ["monday", "mon"];
    TUESDAY "Tuesday" ["tuesday", "tue", "tues"];
    WEDNESDAY "Wednesday" ["wednesday", "wed"];
    THURSDAY "Thursday" ["thursday", "thu", "thurs"];
    FRIDAY "Friday" ["friday", "fri"];
    SATURDAY "Saturday" ["saturday", "sat"];
    SUNDAY "Sunday" ["sunday", "sun"];
    JANUARY "January" ["january", "jan"];
    FEBRUARY "February" ["february", "feb"];
    MARCH "March" ["march", "mar"];
    APRIL "April" ["april", "apr"];
    MAY "May" ["may"];
    JUNE "June" ["june", "jun"];
    JULY "July" ["july", "jul"];
    AUGUST "August" ["august", "aug"];
    SEPTEMBER "September" ["september", "sep"];
    OCTOBER "October" ["october", "oct"];
    NOVEMBER "November" ["november", "nov"];
    DECEMBER "December" ["december", "dec"];
    VAGUE_TIME "refused: say the hour" ["morning", "afternoon", "evening", "night", "noonish", "soon", "later today", "eventually", "sometime"];

    // What a replica gets.
    REPLICAS "replicas" ["replicas", "replica", "copies", "copy", "instances", "instance", "pods", "pod", "replica count", "replicas in total"];
    NUMBER_OF "" ["number of", "the number of", "count of", "amount of", "the amount of", "the count of"];
    GPUS "GPUs" ["gpus", "gpu", "cards", "card", "accelerators", "accelerator", "gpu count", "graphics cards"];
    OF_THING "" ["of", "worth of"];
    ON_MODEL "" ["on", "using"];
    BY_X "" ["x", "of"];
    OF_TYPE "a model" ["of type", "of model", "of kind", "type", "model"];
    MAKERS "" ["nvidia", "amd", "tesla", "geforce", "quadro"];
    SERIES "a model in two words" ["rtx", "gtx", "instinct"];
    NO "none" ["no", "zero", "without", "without any"];
    MEMORY "memory of each replica" ["memory", "ram", "mem", "memory limit", "memory request"];
    VRAM "memory of each GPU" ["vram", "gpu memory", "video memory", "memory per gpu", "of memory each", "memory each", "device memory"];
    CPU "CPU of each replica" ["cpu", "cpus", "cores", "core", "vcpu", "vcpus", "cpu cores", "cpu limit", "cpu request"];
    CPU_LOAD "the load that replicas follow: CPU" ["cpu", "cpu usage", "cpu load", "cpu utilization", "cpu utilisation", "cpu use", "average cpu"];
    GPU_LOAD "the load that replicas follow: GPU" ["gpu", "gpus", "gpu usage", "gpu load", "gpu utilization", "gpu utilisation", "gpu use", "gpu.utilization"];
    QUEUE "the load that replicas follow: requests waiting" ["queue", "queue length", "queue depth", "queued requests", "requests in the queue", "queue size", "requests waiting", "requests in queue", "requests under way", "in-flight requests"];
    AUTOSCALE "the number of replicas follows a load" ["autoscale", "auto-scale", "autoscaling", "autoscaled", "scale automatically", "automatically scale", "scaling", "scale", "follow", "following", "autoscale it"];
    FOLLOW "the load that is aimed at" ["on", "by", "at", "based on", "to keep", "targeting", "with a target of", "keeping", "target", "to follow", "for", "according to", "aiming at", "around", "aiming for"];
    KEEP "the load that is aimed at" ["keep", "keeping", "hold", "holding", "maintain", "target", "targeting"];
    AIM "" ["at", "to", "of", "=", "around", "near", "target"];
    MIN "never fewer" ["min", "minimum", "at least", "minimum of", "a minimum of", "no fewer than", "min replicas", "minimum replicas", "not fewer than", "no less than"];
    UP_TO "never more: with up to 10 replicas" ["up to"];
    MAX "never more" ["max", "maximum", "at most", "maximum of", "a maximum of", "no more than", "max replicas", "maximum replicas", "not more than"];

    // Everything else.
    PRIORITY "priority" ["priority", "prio", "priority of", "priority:", "prio:"];
    LOW "low" ["low", "lowest"];
    NORMAL "normal" ["normal", "default", "medium"];
    HIGH "high" ["high", "highest", "top"];
    TIMEOUT "longest time" ["timeout", "timeout of", "a timeout of", "time out after", "time limit", "time limit of", "a time limit of", "timing out after", "timeout after", "deadline", "deadline of", "give up after"];
    IMAGE "the image" ["image", "from image", "with image", "using image", "container image", "docker image", "container", "the image"];
    COMMAND "the command" ["command", "with command", "running", "cmd", "executing", "that runs", "with the command", "running command"];
    SET "" ["set", "setting"];
    ENV "environment" ["env", "environment", "environment variable", "environment variables", "env var", "env vars", "variable", "variables", "envs", "--env", "-e"];
    PORT "the port" ["port", "on port", "listening on port", "listening on", "exposing port", "at port", "using port", "expose port", "serving on port"];
    NAMESPACE "the namespace" ["namespace", "in namespace", "in the namespace", "ns", "in ns", "-n", "--namespace", "to namespace", "into namespace", "within namespace", "namespace:", "under namespace"];
    IN_THE "the namespace, said before" ["in the", "to the", "into the", "within the", "in our", "in", "to", "into"];
    NAMESPACE_NOUN "the namespace" ["namespace", "ns"];
    NAMED "the name" ["named", "called", "as", "under the name", "name", "with name"];
    SAFELY "safely: a canary with conditions" ["safely", "carefully", "cautiously", "with care", "gently", "safe", "careful", "be careful", "with caution", "the safe way", "in a safe way"];
    SLOWLY "slowly: one at a time, with rests" ["slowly", "gradually", "slow", "bit by bit", "step by step", "little by little", "gradual"];
    QUICKLY "quickly: as many at once as can be done without losing a healthy replica" ["quickly", "fast", "asap", "a.s.a.p", "urgent", "urgently", "as soon as possible", "as fast as possible", "as quickly as possible", "right away", "rapidly", "quick", "hurry", "at once", "it's urgent", "this is urgent", "in a hurry", "straight away"];
    EMERGENCY "emergency: as quickly, at high priority" ["emergency", "in an emergency", "this is an emergency", "it's an emergency", "as an emergency", "an emergency"];
    BECAUSE "why: to the end of the sentence, or quoted" ["because", "because of", "since", "reason", "due to", "the reason is", "for the reason", "as the reason", "with reason", "reason:", "reason is", "owing to"];

    // Durations.
    MILLIS "milliseconds" ["ms", "millisecond", "milliseconds", "msec", "millis"];
    SECONDS "seconds" ["s", "sec", "secs", "second", "seconds"];
    MINUTES "minutes" ["m", "min", "mins", "minute", "minutes"];
    HOURS "hours" ["h", "hr", "hrs", "hour", "hours"];
    DAYS "days" ["d", "day", "days"];
    WEEKS "weeks" ["w", "week", "weeks"];
    HALF_AN "half of it" ["half an", "half a"];
    QUARTER "a quarter of an hour" ["a quarter of an hour", "quarter of an hour"];
    PERCENT "percent" ["%", "percent", "per cent", "pct"];
    ONE "1" ["one", "a", "an", "a single", "one single", "single"];
}

/// Numbers in words, beside "one".
pub(super) const NUMBERS: &[(&str, u32)] = &[
    ("zero", 0),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
    ("nine", 9),
    ("ten", 10),
    ("eleven", 11),
    ("twelve", 12),
    ("sixteen", 16),
    ("twenty", 20),
    ("thirty", 30),
    ("fifty", 50),
    ("hundred", 100),
];
