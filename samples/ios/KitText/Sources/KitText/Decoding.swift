import Foundation

/// A found span: scalars of the text, and the mean probability of its words' tags.
public struct Span {
    public let label: String
    public let begin: Int
    public let end: Int
    public let text: String
    public let score: Double
}

/// Normalize to probabilities that sum to 1, safely for large logits.
public func softmax(_ logits: [Float]) -> [Double] { logSoftmax(logits).map { exp($0) } }

/// The logarithm of softmax.
func logSoftmax(_ logits: [Float]) -> [Double] {
    let values = logits.map(Double.init)
    let most = values.max() ?? 0
    let sum = log(values.reduce(0) { $0 + exp($1 - most) })
    return values.map { $0 - most - sum }
}

/// The likeliest label, or nil where it is less likely than `abstainBelow` of manifest.json.
public func likeliest(_ scores: [String: Float], abstainBelow: Double) -> String? {
    scores.max { $0.value < $1.value }.flatMap { Double($0.value) >= abstainBelow ? $0.key : nil }
}

/// The labels at or over their thresholds of manifest.json, the likeliest first; without any, .5.
public func overThreshold(_ scores: [String: Float], thresholds: [String: Double]) -> [String] {
    scores.sorted { $0.value > $1.value }
        .filter { Double($0.value) >= thresholds[$0.key] ?? 0.5 }.map(\.key)
}

/// The spans of a text.
///
/// - Parameter logits: those of each word, a value for each label
public func findSpans(labels: [String], text: String, words: [Word], logits: [[Float]]) -> [Span] {
    if words.isEmpty { return [] }
    let scalars = Array(text.unicodeScalars)
    let tags = bestTags(logits.map(logSoftmax), labels: labels)
    return readSpans(tags.map { labels[$0] }).map { label, range in
        let begin = words[range.lowerBound].begin, end = words[range.upperBound].end
        var found = String.UnicodeScalarView()
        found.append(contentsOf: scalars[begin..<end])
        let chances = range.map { softmax(logits[$0])[tags[$0]] }
        return Span(label: label, begin: begin, end: end, text: String(found),
                    score: chances.reduce(0, +) / Double(chances.count))
    }
}

/// The likeliest valid sequence of labels, by number, for log-probabilities [word][label].
///
/// I-x may only follow B-x or I-x, where the labels hold a B-x. The search is Viterbi's with
/// transitions that are free or forbidden.
func bestTags(_ scores: [[Double]], labels: [String]) -> [Int] {
    let before = labels.map { allowedBefore($0, labels) }
    func allowed(_ from: Int, _ to: Int) -> Bool { before[to]?.contains(labels[from]) ?? true }
    var best = labels.indices.map { before[$0] == nil ? scores[0][$0] : -.infinity }
    var back: [[Int]] = []
    for row in scores.dropFirst() {
        let from = labels.indices.map { to in
            largest(labels.indices.map { allowed($0, to) ? best[$0] : -.infinity })
        }
        best = labels.indices.map { allowed(from[$0], $0) ? best[from[$0]] + row[$0] : -.infinity }
        back.append(from)
    }
    var chosen = [largest(best)]
    for from in back.reversed() { chosen.append(from[chosen[chosen.count - 1]]) }
    return chosen.reversed()
}

/// Number of the largest value, of equal ones the first.
private func largest(_ values: [Double]) -> Int {
    values.indices.reduce(0) { values[$1] > values[$0] ? $1 : $0 }
}

/// The labels that may stand before this one; nil: any, and it may come first.
private func allowedBefore(_ label: String, _ labels: [String]) -> Set<String>? {
    guard label.hasPrefix("I-") else { return nil }
    let name = label.dropFirst(2)
    return labels.contains("B-\(name)") ? ["B-\(name)", "I-\(name)"] : nil
}

// BIO, BMES, BIOES and BILOU write a start and an end like this.
private let starts: Set<Substring> = ["B", "S", "U"]
private let ends: Set<Substring> = ["E", "S", "L"]

/// The labels and word numbers of tags; a tag that continues nothing opens a span.
func readSpans(_ tags: [String]) -> [(String, ClosedRange<Int>)] {
    var spans: [(String, ClosedRange<Int>)] = []
    var open: String?
    for (place, tag) in tags.enumerated() {
        let parts = tag.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else {
            open = nil
            continue
        }
        let name = String(parts[1])
        if !starts.contains(parts[0]), name == open, let last = spans.popLast() {
            spans.append((name, last.1.lowerBound...place))
        } else {
            spans.append((name, place...place))
        }
        open = ends.contains(parts[0]) ? nil : name
    }
    return spans
}
