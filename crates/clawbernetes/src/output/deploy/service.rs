//! Services.

use api::{deploy::ServiceProtocol, op::ServiceView, time};

use super::{
    super::{
        Grid, Page, Render,
        cells::{dash, moment, or_dash, pairs},
    },
    status::{checks, revisions},
    words::{autoscale, replicas, revision},
};

impl Render for Vec<ServiceView> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No services.");
            return;
        }
        let namespaces = self.windows(2).any(|pair| pair[0].namespace != pair[1].namespace);
        let mut header = vec![
            "NAME",
            "VERSION",
            "READY",
            "ADDRESS",
            "AUTOSCALING",
            "DEPLOYMENT",
            "CREATED",
            "OWNER",
        ];
        if namespaces {
            header.insert(1, "NAMESPACE");
        }
        let mut grid = Grid::new(header).lesser(["OWNER", "CREATED"]);
        for service in self {
            let bounds = service.autoscale.as_ref();
            let mut cells = vec![
                service.name.clone(),
                dash(revision(service.version.as_deref(), service.revision)),
                format!("{}/{}", service.ready, service.replicas),
                dash(service.address.as_deref()),
                dash(bounds.map(|bounds| format!("{}-{}", bounds.min, bounds.max))),
                dash(service.deployment.as_ref()),
                time::relative(service.created_at, page.now()),
                service.owner.clone(),
            ];
            if namespaces {
                cells.insert(1, service.namespace.clone());
            }
            grid.row(cells);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|service| service.name.clone()).collect()
    }
}

impl Render for ServiceView {
    fn render(&self, page: &mut Page) {
        let protocol = self.protocol.map(|protocol| match protocol {
            ServiceProtocol::Http => "HTTP, balanced by request",
            ServiceProtocol::Tcp => "TCP, balanced by connection",
        });
        let mut fields = vec![
            ("Name", self.name.clone()),
            ("Namespace", self.namespace.clone()),
            ("Owner", self.owner.clone()),
            ("Created", moment(self.created_at, page.now())),
            (
                "Good version",
                match (&self.version, self.revision) {
                    (Some(version), Some(number)) => format!("{version} (revision {number})"),
                    (version, number) => revision(version.as_deref(), number).unwrap_or_else(|| "none yet".to_owned()),
                },
            ),
            ("Image", or_dash(self.image.clone())),
            ("Ready", format!("{} of {}", self.ready, replicas(self.replicas))),
            (
                "Address",
                reached(dash(self.address.as_deref()), self.closed.as_deref()),
            ),
        ];
        for carried in &self.carried_by {
            let at = format!("{} (node {})", carried.address, carried.node);
            fields.push(("Carried at", reached(at, carried.closed.as_deref())));
        }
        fields.push(("Protocol", dash(protocol)));
        if let Some(bounds) = &self.autoscale {
            fields.push(("Autoscaling", autoscale(bounds)));
        }
        if let Some(scaling) = &self.scaling {
            fields.push(("Decided last", scaling.clone()));
        }
        for (label, marks) in [("Labels", &self.marks.labels), ("Annotations", &self.marks.annotations)] {
            if !marks.is_empty() {
                fields.push((label, pairs(marks)));
            }
        }
        fields.push(("Deployment", dash(self.deployment.as_ref())));
        if !self.requests_under_way.is_empty() {
            let told: Vec<String> = self
                .requests_under_way
                .iter()
                .map(|(revision, requests)| format!("{requests} at revision {revision}"))
                .collect();
            fields.push(("Under way", told.join(", ")));
        }
        page.fields(fields);
        revisions(page, &self.revisions);
        checks(page, &self.checks);
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

/// An address, and why it can't be reached.
fn reached(address: String, closed: Option<&str>) -> String {
    match closed {
        Some(why) => format!("{address}, not open: {why}"),
        None => address,
    }
}
