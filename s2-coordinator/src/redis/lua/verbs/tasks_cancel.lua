-- tasks_cancel <task> <reason>
local function verb()
  open({ name_of(ARGV[5]) })
  begin_queues()
  local rec, reason = find_named(name_of(ARGV[5])), ARGV[6]
  if not rec then
    return { 'unknown_task', tonumber(ARGV[5]) }
  elseif is_finished(rec) then
    return { 'ok', rec.state == CANCELLED and 1 or 0 }
  end
  write(rec.name16 .. 'o', reason)
  with(rec, FLAG.outcome)
  finish(rec, CANCELLED, END.cancelled, reason)
  note('cancelled', rec, '"reason":' .. cjson.encode(reason))
  tell(rec)
  return { 'ok', 1 }
end
