-- tasks_task <task>: number, terms, text, what it was to come after, state, failures, session.
local function verb()
  local id = name_of(ARGV[5])
  open({ id, id .. 'd' })
  local rec = find_named(name_of(ARGV[5]))
  return rec and { 'ok', describe_task(rec) } or { 'unknown_task', tonumber(ARGV[5]) }
end
