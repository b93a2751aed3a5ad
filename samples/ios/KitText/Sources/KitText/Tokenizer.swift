import Foundation

/// A piece of a word: its id, the number of its word, and the scalars of the text it stands for.
struct Piece {
    let id: Int32
    let word: Int
    let begin: Int
    let end: Int
}

/// A vocabulary that lacks a piece which BERT cannot do without.
public struct VocabularyError: LocalizedError {
    let piece: String

    public var errorDescription: String? {
        "vocab.txt has no line \(piece). Copy vocab.txt and manifest.json of one artifact."
    }
}

/// BERT's WordPiece tokenizer.
public struct Tokenizer {
    // By scalars: Swift takes strings for equal that Unicode writes in two ways, and BERT does not.
    private let ids: [[Unicode.Scalar]: Int32]
    private let reader: SymbolReader
    private let unknown: Int32
    let open: Int32
    let close: Int32

    /// Ids of the marks of capitals, which belong to no word.
    public let marks: Set<Int32>

    /// - Parameter vocabulary: content of vocab.txt; a line's number is its id
    public init(vocabulary: String, settings: TokenizerSettings) throws {
        let lines = vocabulary.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
        let ids = Dictionary(lines.enumerated().map { (Array($1), Int32($0)) }, uniquingKeysWith: { $1 })
        func id(of piece: String) throws -> Int32 {
            guard let found = ids[Array(piece.unicodeScalars)] else { throw VocabularyError(piece: piece) }
            return found
        }
        self.ids = ids
        reader = SymbolReader(settings: settings)
        unknown = try id(of: "[UNK]")
        open = try id(of: "[CLS]")
        close = try id(of: "[SEP]")
        marks = settings.marksCase
            ? [try id(of: String(oneCapital)), try id(of: String(severalCapitals))] : []
    }

    /// Encode a text, cut to `limit` tokens, [CLS] and [SEP] included.
    public func encode(_ text: String, limit: Int) -> [Int32] {
        [open] + pieces(text).prefix(limit - 2).map(\.id) + [close]
    }

    /// Split a text into pieces, without special ones around them.
    func pieces(_ text: String) -> [Piece] {
        var found: [Piece] = []
        var word = 0
        for section in sections(Array(text.unicodeScalars)) {
            if special.contains(Array(section)), let id = ids[Array(section)] {
                found.append(Piece(id: id, word: word, begin: section.startIndex, end: section.endIndex))
                word += 1
                continue
            }
            for symbols in words(of: reader.read(section, start: section.startIndex)) {
                found += pieces(of: symbols, word: word)
                word += 1
            }
        }
        return found
    }

    /// Take the longest piece that the word begins with, then of the rest.
    private func pieces(of symbols: [Symbol], word: Int) -> [Piece] {
        let whole = Piece(id: unknown, word: word, begin: symbols[0].begin, end: symbols[symbols.count - 1].end)
        if symbols.count > longestWord { return [whole] }
        let codes = symbols.map(\.code)
        var found: [Piece] = []
        var start = 0
        while start < codes.count {
            var end = codes.count
            var id: Int32?
            while end > start {
                id = ids[(start == 0 ? [] : continuing) + codes[start..<end]]
                if id != nil { break }
                end -= 1
            }
            guard let id else { return [whole] }
            found.append(Piece(id: id, word: word, begin: symbols[start].begin, end: symbols[end - 1].end))
            start = end
        }
        return found
    }
}

private let longestWord = 100 // in symbols; a longer one is unknown
private let continuing: [Unicode.Scalar] = ["#", "#"]

// What is written so in a text is read as the special piece itself.
private let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map { Array($0.unicodeScalars) }

/// Cut a text around special pieces.
private func sections(_ text: [Unicode.Scalar]) -> [ArraySlice<Unicode.Scalar>] {
    var found: [ArraySlice<Unicode.Scalar>] = []
    var start = 0, place = 0
    while place < text.count {
        if text[place] == "[", let piece = special.first(where: { text[place...].starts(with: $0) }) {
            found += [text[start..<place], text[place..<place + piece.count]]
            start = place + piece.count
            place = start
        } else {
            place += 1
        }
    }
    return found + [text[start...]]
}

/// Split at spaces and around punctuation.
private func words(of symbols: [Symbol]) -> [[Symbol]] {
    var words: [[Symbol]] = []
    var isOpen = false
    for symbol in symbols {
        let alone = isPunctuation(symbol.code)
        if symbol.code == " " {
            isOpen = false
        } else if isOpen && !alone {
            words[words.count - 1].append(symbol)
        } else {
            words.append([symbol])
            isOpen = !alone
        }
    }
    return words
}

// BERT counts all signs of ASCII, such as $ and +, which Unicode calls symbols.
private func isPunctuation(_ code: Unicode.Scalar) -> Bool {
    if code.isASCII {
        return (33...126).contains(code.value) && !code.properties.isAlphabetic && !("0"..."9").contains(code)
    }
    switch code.properties.generalCategory {
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation,
         .initialPunctuation, .finalPunctuation, .otherPunctuation: return true
    default: return false
    }
}
