// Asks the text files of samples/ios, as ../kotlin/Check.kt asks those of samples/android:
// a question a line in, an answer a line out.
//
//   VOCABULARY LABELS LOWER_CASE STRIP_ACCENTS MARKS_CASE < questions

import Foundation

func fromHex(_ digits: Substring) -> String {
    let digits = Array(digits)
    return String(decoding: stride(from: 0, to: digits.count, by: 2).map {
        UInt8(String(digits[$0...$0 + 1]), radix: 16)!
    }, as: UTF8.self)
}

func toHex(_ text: String) -> String {
    text.utf8.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func joined(_ ids: [Int32]) -> String { ids.map(String.init).joined(separator: ",") }

let files = try CommandLine.arguments[1...2].map { try String(contentsOfFile: $0, encoding: .utf8) }
let flags = CommandLine.arguments[3...5].map { $0 == "true" }
let settings = TokenizerSettings(lowerCase: flags[0], stripAccents: flags[1], marksCase: flags[2])
let tokenizer = try Tokenizer(vocabulary: files[0], settings: settings)
let labels = files[1].split(separator: "\n").map(String.init)

while let line = readLine() {
    let parts = line.split(separator: " ", omittingEmptySubsequences: false)
    let text = fromHex(parts[1]), limit = Int(parts[2])!
    switch parts[0] {
    case "fold":
        print(toHex(SymbolReader(settings: settings).fold(text)))
    case "encode":
        print(joined(tokenizer.encode(text, limit: limit)))
    case "windows":
        print(tokenizer.windows(text, limit: limit).map { joined($0.ids) }.joined(separator: " "))
    case "words":
        print(placeWords(tokenizer.windows(text, limit: limit), skipped: tokenizer.marks).map {
            "\($0.window),\($0.token),\($0.begin),\($0.end)"
        }.joined(separator: " "))
    case "spans":
        let windows = tokenizer.windows(text, limit: limit)
        let words = placeWords(windows, skipped: tokenizer.marks)
        let numbers = parts[3].split(separator: ",").map { Float($0)! }
        var starts = [0]
        for window in windows { starts.append(starts[starts.count - 1] + window.ids.count) }
        let logits = words.map { word -> [Float] in
            let first = (starts[word.window] + word.token) * labels.count
            return Array(numbers[first..<first + labels.count])
        }
        print(findSpans(labels: labels, text: text, words: words, logits: logits).map {
            "\($0.label),\($0.begin),\($0.end),\(toHex($0.text)),\($0.score)"
        }.joined(separator: " "))
    case "labels": // scores, then thresholds, then what the likeliest label must reach
        let values = parts[3].split(separator: ",").map { Double($0)! }
        let scores = Dictionary(uniqueKeysWithValues: zip(labels, values.map { Float($0) }))
        let thresholds = Dictionary(uniqueKeysWithValues: zip(labels, values[labels.count...]))
        print(likeliest(scores, abstainBelow: values[values.count - 1]) ?? "null",
              overThreshold(scores, thresholds: thresholds).joined(separator: ","))
    default:
        fatalError("unknown question \(parts[0])")
    }
}
