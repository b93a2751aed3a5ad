import KitText
import SwiftUI

@main
struct KitApp: App {
    var body: some Scene {
        WindowGroup { QuestionView() }
    }
}

/// Answers one question after the other, off the screen's thread.
actor Desk {
    private var model: Answerer?

    func ask(_ text: String) -> String {
        do {
            return describe(try loaded().answer(text))
        } catch {
            // A file that lies in the wrong place is the likeliest reason.
            return error.localizedDescription
        }
    }

    private func loaded() throws -> Answerer {
        if let model { return model }
        guard let folder = Bundle.main.url(forResource: "model", withExtension: nil) else {
            throw ArtifactError("The app has no folder model. Add it to the target as a folder reference.")
        }
        let opened = try openModel(Artifact(folder: folder))
        model = opened
        return opened
    }
}

/// A field for a text, and below it what the model says of it.
struct QuestionView: View {
    @State private var text = ""
    @State private var answer = ""
    private static let desk = Desk()

    var body: some View {
        VStack(alignment: .leading) {
            TextField("A text", text: $text, axis: .vertical).textFieldStyle(.roundedBorder)
            ScrollView { Text(answer).frame(maxWidth: .infinity, alignment: .leading) }
        }
        .padding()
        // A new text cancels the task of the one before, whose answer is then not shown.
        .task(id: text) {
            let found = await Self.desk.ask(text)
            if !Task.isCancelled { answer = found }
        }
    }
}

func describe(_ answer: Answer) -> String {
    switch answer {
    case let .labels(chosen, scores):
        let lines = scores.sorted { $0.value > $1.value }
            .map { String(format: "%@ %.1f %%", $0.key, 100 * $0.value) }
        return ([chosen.isEmpty ? "no label" : chosen.joined(separator: " and ")] + lines)
            .joined(separator: "\n")
    case let .spans(spans):
        return spans.isEmpty ? "no span" : spans.map { "\($0.label): \($0.text)" }.joined(separator: "\n")
    case let .vector(values):
        let first = values.prefix(4).map { String(format: "%.3f", $0) }.joined(separator: ", ")
        return "\(values.count) numbers: \(first) …"
    }
}
