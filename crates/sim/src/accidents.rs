//! What goes wrong, and how it is put right.

use api::node::GpuHealth;

use crate::world::{Event, NODES, World};

impl World {
    pub(crate) fn accident(&mut self) {
        if self.healed {
            return;
        }
        let now = self.now;
        let at = self.random.below(NODES as u64) as usize;
        let long = 2 * self.config.lost_ms;
        match self.random.below(100) {
            0..20 => {
                // A machine, a few, or a whole rack.
                let many = self.random.pick(&[1, 1, 2, 5, 12]) as usize;
                let most = self.random.pick(&[45_000, long]);
                let until = now + self.random.range(500, most);
                let cuts = self.random.chance(500);
                for at in at..(at + many).min(NODES) {
                    self.trace(|| format!("accident: n{at} is cut off until {until}"));
                    self.nodes[at].cut_off_until = until;
                    if cuts {
                        self.cut_all(at);
                    }
                }
            }
            20..30 => self.cut_all(at),
            30..36 => self.gateway_dies(),
            36..42 => {
                self.trace(|| "accident: the gateway will die right after a commit".to_owned());
                self.gateway.dies_at_commit = true;
            }
            42..52 => {
                if self.nodes[at].agent.is_some() {
                    self.agent_dies(at);
                    let down = self.random.delay(50, 8_000, long);
                    self.schedule(now + down, Event::AgentStarts(at));
                }
            }
            52..66 => {
                let after = self.random.below(7) as u32;
                if let Some(run) = &mut self.nodes[at].agent {
                    run.dies_after = Some(after);
                    self.trace(|| format!("accident: the agent of n{at} will die after {after} effects"));
                }
            }
            66..76 => {
                if self.nodes[at].up {
                    self.machine_dies(at);
                    let most = self.random.pick(&[40_000, long]);
                    let down = self.random.range(3_000, most);
                    self.schedule(now + down, Event::MachineUp(at));
                }
            }
            76..80 => self.gateway.slow_until = now + self.random.range(1_000, 20_000),
            80..83 => {
                self.trace(|| "accident: the gateway's disk is full".to_owned());
                self.gateway.full_until = now + self.random.range(500, 10_000);
            }
            83..88 => self.nodes[at].slow_until = now + self.random.range(2_000, 20_000),
            88..94 => {
                let gpus = u64::from(self.nodes[at].gpus);
                if gpus > 0 {
                    let gpu = self.random.below(gpus) as u32;
                    let reason = "it fell off the bus".to_owned();
                    self.nodes[at].health.insert(gpu, GpuHealth::Failed { reason });
                }
            }
            94..98 => {
                let jump = self.random.around(600_000);
                self.nodes[at].clock.ahead_ms += jump;
            }
            _ => self.gateway.clock.ahead_ms += self.random.around(20_000),
        }
    }

    fn cut_all(&mut self, at: usize) {
        let of = self.connections.iter().filter(|(_, c)| c.node == at);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        for id in ids {
            self.cut(id);
        }
    }

    /// Nothing goes wrong any more, and what went wrong is repaired.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "everything is repaired".to_owned());
        self.healed = true;
        self.script.healed_ms = self.now;
        let now = self.now;
        self.gateway.slow_until = now;
        self.gateway.full_until = now;
        self.gateway.dies_at_commit = false;
        if self.gateway.running.is_none() {
            self.schedule(now + 1_000, Event::GatewayStarts);
        }
        for at in 0..NODES {
            let node = &mut self.nodes[at];
            node.cut_off_until = node.cut_off_until.min(now);
            node.slow_until = now;
            node.health.clear();
            if let Some(run) = &mut node.agent {
                run.dies_after = None;
            }
            let due = now + self.random.range(0, 3_000);
            self.schedule(due, Event::MachineUp(at));
        }
        self.schedule(now + 5_000, Event::Settled);
    }
}
