-- tasks_outcome <task> <wait>: `done` result; `failed` cause, other task, history; `cancelled` reason; nothing while it is not
-- finished: then the process is told once when something becomes of it.
local function verb()
  local id = name_of(ARGV[5])
  open({ id, id .. 'o' })
  local rec = find_named(name_of(ARGV[5]))
  if not rec then
    return { 'unknown_task', tonumber(ARGV[5]) }
  elseif not is_finished(rec) then
    if ARGV[6] == '1' then
      watch(rec)
    end
    return { 'ok', {} }
  end
  return { 'ok', describe_outcome(rec) }
end
