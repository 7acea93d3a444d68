//! Reads a transcript: commands, and what the original answered.

/// A line of a transcript's own, or a command with its answer.
#[derive(Debug)]
pub(crate) enum Item {
    Heading(String),
    Cell(Cell),
}

/// One command and its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub command: String,
    pub input: String,
    pub out: String,
    pub error: String,
    pub status: u8,
}

pub(crate) fn read(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("# ") {
            items.push(Item::Heading(heading.to_owned()));
        } else if let Some(command) = line.strip_prefix("$ ") {
            items.push(Item::Cell(read_cell(command, &mut lines)));
        }
    }
    items
}

fn read_cell<'a>(command: &str, lines: &mut impl Iterator<Item = &'a str>) -> Cell {
    let mut cell = Cell {
        command: command.to_owned(),
        ..Cell::default()
    };
    let mut in_error = false;
    for line in lines {
        if let Some(status) = line.strip_prefix("[exit ") {
            cell.status = status.trim_end_matches(']').parse().unwrap();
            return cell;
        }
        let text = match line.strip_prefix("[stdin] ") {
            _ if line == "[stderr]" => {
                in_error = true;
                continue;
            }
            Some(input) => {
                cell.input += &format!("{input}\n");
                continue;
            }
            None if in_error => &mut cell.error,
            None => &mut cell.out,
        };
        *text += &format!("{line}\n");
    }
    panic!("no exit status after {command}");
}

/// The cells of the matrix, which has a form of its own and only the first line of an error.
pub(crate) fn read_matrix(text: &str) -> Vec<Cell> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.split(" | ");
        let status = columns.next()?.trim().parse().ok()?;
        let command = columns.next()?.to_owned();
        let error = columns.next().unwrap_or_default().trim().to_owned();
        Some(Cell {
            command,
            error,
            status,
            ..Cell::default()
        })
    })
    .collect()
}

/// The words of a command as a shell reads them: quotes, and nothing else that is special.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in command.chars() {
        match (quote, letter) {
            (Some(end), letter) if letter == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
