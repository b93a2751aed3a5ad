import Foundation

/// A Unicode scalar as the model reads it, and the scalars of the text that it stands for.
struct Symbol {
    var code: Unicode.Scalar
    let begin: Int
    let end: Int
}

/// What the tokenizer does to texts: `tokenizer` in manifest.json.
public struct TokenizerSettings {
    let lowerCase: Bool
    let stripAccents: Bool
    let marksCase: Bool

    /// - Parameter marksCase: capitals are folded and told of in pieces of their own:
    ///   `John met NASA` is `⁕ john met ⁑ nasa`
    public init(lowerCase: Bool, stripAccents: Bool, marksCase: Bool) {
        self.lowerCase = lowerCase
        self.stripAccents = stripAccents
        self.marksCase = marksCase
    }
}

let oneCapital: Unicode.Scalar = "⁕"
let severalCapitals: Unicode.Scalar = "⁑"
private let space: Unicode.Scalar = " "
private let replacement: Unicode.Scalar = "\u{FFFD}" // what decoders write for broken bytes

/// BERT's normalizer, which remembers where each symbol stood.
public struct SymbolReader {
    private let settings: TokenizerSettings

    public init(settings: TokenizerSettings) { self.settings = settings }

    /// Normalize scalars that begin at `start` of a longer text.
    func read<Text: Sequence>(_ text: Text, start: Int = 0) -> [Symbol] where Text.Element == Unicode.Scalar {
        var symbols = text.enumerated().compactMap { place, code in
            clean(Symbol(code: code, begin: start + place, end: start + place + 1))
        }
        if settings.stripAccents { symbols = symbols.flatMap(withoutAccents) }
        if settings.marksCase { symbols = markCapitals(symbols) }
        symbols = symbols.flatMap(apartIfHan)
        return settings.lowerCase ? symbols.flatMap(lower) : symbols
    }

    /// Do before MediaPipe's tokenizer what it leaves out of BERT's: then its ids are BERT's.
    public func fold(_ text: String) -> String {
        var folded = String.UnicodeScalarView()
        folded.append(contentsOf: read(text.unicodeScalars).map(\.code))
        return String(folded)
    }
}

/// Leave out what cannot be seen, and make a space of every blank.
private func clean(_ symbol: Symbol) -> Symbol? {
    var spaced = symbol
    spaced.code = space
    switch symbol.code {
    case "\t", "\n", "\r": return spaced
    case replacement: return nil
    default: break
    }
    switch symbol.code.properties.generalCategory {
    case .control, .format, .privateUse: return nil
    case .spaceSeparator, .lineSeparator, .paragraphSeparator: return spaced
    default: return symbol
    }
}

private func withoutAccents(_ symbol: Symbol) -> [Symbol] {
    if symbol.code.isASCII { return [symbol] }
    return symbol.replaced(by: String(symbol.code).decomposedStringWithCanonicalMapping)
        .filter { $0.code.properties.generalCategory != .nonspacingMark }
}

/// Write a mark before each word that begins with a capital of ASCII.
private func markCapitals(_ symbols: [Symbol]) -> [Symbol] {
    symbols.indices.flatMap { place -> [Symbol] in
        let symbol = symbols[place]
        let insideWord = place > 0 && isWordCharacter(symbols[place - 1].code)
        if !isCapital(symbol.code) || insideWord { return [symbol] }
        let more = place + 1 < symbols.count && isCapital(symbols[place + 1].code)
        var mark = symbol
        mark.code = more ? severalCapitals : oneCapital
        return [mark, symbol]
    }
}

private func isCapital(_ code: Unicode.Scalar) -> Bool { ("A"..."Z").contains(code) }

private func isWordCharacter(_ code: Unicode.Scalar) -> Bool {
    isCapital(code) || ("a"..."z").contains(code) || ("0"..."9").contains(code) || code == "_"
}

/// Each Han character is a word of its own.
private func apartIfHan(_ symbol: Symbol) -> [Symbol] {
    guard han.contains(where: { $0.contains(symbol.code.value) }) else { return [symbol] }
    var blank = symbol
    blank.code = space
    return [blank, symbol, blank]
}

// The ranges of Hugging Face's tokenizers, a gap between the last two of U+2Bxxx included.
private let han: [ClosedRange<UInt32>] = [
    0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F,
    0x2B920...0x2CEAF, 0xF900...0xFAFF, 0x2F800...0x2FA1F,
]

// One at a time: at a word's end another letter would be made of a capital sigma.
private func lower(_ symbol: Symbol) -> [Symbol] {
    symbol.replaced(by: symbol.code.properties.lowercaseMapping)
}

private extension Symbol {
    func replaced(by text: String) -> [Symbol] {
        text.unicodeScalars.map { Symbol(code: $0, begin: begin, end: end) }
    }
}
